"""The fault suite: breaks the runner on purpose and looks, from outside the spool, whether anything was lost.

Run as: python -m tests.faults        (or: make faults)

`box.py` owns one data home with a runner over it, `oracle.py` says what must hold, `points.py` kills and fails single
system calls, `order.py` reads the order of fsyncs from a trace, `storm.py` kills at random, `odd.py` has the cases of
their own, `planted.py` puts bugs into the runner that the suite must catch.
"""
