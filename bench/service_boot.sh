#!/usr/bin/env bash
# Boots a real systemd as PID 1 of its own namespaces, over an overlay of this machine's root that is thrown away.
# Run by bench/service.py: unshare --pid --mount --uts --ipc --net --cgroup --fork service_boot.sh SCRATCH REPOSITORY
set -euo pipefail
scratch=$1 repository=$2 root=$1/root
mount -t tmpfs tmpfs "$scratch"
mkdir -p "$scratch/upper" "$scratch/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
for node in null zero full random urandom tty; do
  touch "$root/dev/$node"
  mount --bind "/dev/$node" "$root/dev/$node"
done
mount -t devpts devpts "$root/dev/pts" -o newinstance,ptmxmode=0666,mode=620
ln -s pts/ptmx "$root/dev/ptmx"
for folder in dev/shm tmp; do mount -t tmpfs -o mode=1777 tmpfs "$root/$folder"; done
mount -t tmpfs -o mode=0755 tmpfs "$root/run"
mkdir -p "$root/mnt/src"
mount --bind "$repository" "$root/mnt/src"
mount -o remount,bind,ro "$root/mnt/src"
ip link set lo up
ip address add 10.99.0.1/32 dev lo # an address that is not this machine's own 127.0.0.1, to be refused
rm -rf "$root"/etc/systemd/system/*.wants
mkdir -p "$root/run/systemd/system"
# what would speak to the real machine's devices and clock
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-udevd-kernel.socket systemd-udevd-control.socket \
  systemd-timesyncd.service systemd-sysctl.service systemd-modules-load.service systemd-remount-fs.service \
  systemd-random-seed.service systemd-tmpfiles-setup.service systemd-tmpfiles-setup-dev.service \
  systemd-tmpfiles-clean.timer apt-daily.timer systemd-networkd.service; do
  ln -s /dev/null "$root/run/systemd/system/$unit"
done
cd "$root"
mkdir run/before
pivot_root . run/before
umount -l /run/before
mount --make-rshared / # as a host's is; without it credentials do not reach the services
exec env -i container=unshare PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=linux \
  /lib/systemd/systemd --unit=multi-user.target --log-target=console --show-status=0
