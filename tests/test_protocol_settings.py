"""HOME/settings.json, the allowed roots, and telling network mounts from local disks."""

import os
import tempfile
from pathlib import Path

import pytest

from spool.protocol import settings
from spool.protocol.errors import SettingsError
from spool.protocol.home import Home, Run
from spool.protocol.settings import Settings


def test_every_setting_has_a_default(home: Home) -> None:
    assert settings.load(home) == Settings()
    assert Settings().heartbeat_s == 5
    assert Settings().unreadable_s == 60


def test_settings_are_read(home: Home) -> None:
    home.settings.write_text('{"grace_s": 3, "allowed_roots": ["/srv/data"]}')
    assert settings.load(home).grace_s == 3
    assert settings.roots(settings.load(home), home, Path("/x")) == [Path("/srv/data")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("{", "ends early"),
        ('{"grace": 3}', "grace"),
        ('{"grace_s": "3"}', "grace_s"),
        ('{"grace_s": 0}', "grace_s"),
        ("[]", "settings.json"),
        ('{"grace_s": 1, "grace_s": 2}', "more than once"),
    ],
)
def test_wrong_settings_say_where(home: Home, text: str, words: str) -> None:
    home.settings.write_text(text)
    with pytest.raises(SettingsError) as caught:
        settings.load(home)
    assert words in caught.value.message
    assert str(home.settings) in caught.value.message


def test_a_typo_is_guessed_and_all_problems_are_told_at_once(home: Home) -> None:
    home.settings.write_text('{"min_free_gbb": 3, "grace_s": 0, "retention": {"rejected_day": 1}, "nonsense": 1}')
    with pytest.raises(SettingsError) as caught:
        settings.load(home)
    said = caught.value.message
    assert "There is no setting 'min_free_gbb'. Did you mean 'min_free_gb'?" in said
    assert "Did you mean 'retention.rejected_days'?" in said
    assert "There is no setting 'nonsense'." in said
    assert "grace_s: Input should be greater than 0." in said
    assert caught.value.hint == "Correct or remove them."


def test_settings_that_cannot_be_read(home: Home) -> None:
    home.settings.mkdir()
    with pytest.raises(SettingsError, match="cannot be read"):
        settings.load(home)


def test_the_usual_roots(home: Home, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    roots = settings.roots(Settings(), home, tmp_path / "link")
    assert roots == [tmp_path.resolve(), home.root, Path(tempfile.gettempdir()).resolve()]


MOUNTS = rb"""/dev/sda1 / ext4 rw 0 0
server:/share /srv nfs4 rw 0 0
/dev/sdb1 /srv/fast ext4 rw 0 0
//nas/x /mnt/my\040share cifs rw 0 0
me@host: /mnt/m\303\274ller fuse.sshfs rw 0 0
tmpfs /srv-local tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "network"),
    [
        ("/home/anna", False),
        ("/srv", True),
        ("/srv/data/spool", True),
        ("/srv/fast/data", False),
        ("/srv-local/data", False),
        ("/srvx", False),
        ("/mnt/my share/data", True),
        ("/mnt/müller/x", True),
    ],
)
def test_network_mounts(path: str, network: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda self: MOUNTS if str(self) == "/proc/mounts" else b"")
    assert settings.is_network_mount(Path(path)) is network


def test_network_mount_of_a_relative_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setattr(Path, "read_bytes", lambda self: MOUNTS)
    assert settings.is_network_mount(Path("srv/x"))


def test_this_machine_s_mounts_can_be_read(tmp_path: Path) -> None:
    assert settings.is_network_mount(tmp_path) is False


def test_the_home_is_an_option_a_variable_or_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FINETUNER_HOME", raising=False)
    assert Home.at().root == tmp_path / "data"
    monkeypatch.setenv("FINETUNER_HOME", "elsewhere")
    assert Home.at().root == tmp_path / "elsewhere"
    assert Home.at("/srv/x").root == Path("/srv/x")
    monkeypatch.setenv("FINETUNER_HOME", "")
    assert Home.at().root == tmp_path / "data"


def test_every_folder_of_a_home_is_below_its_root(home: Home) -> None:
    properties = [name for name, value in vars(Home).items() if isinstance(value, property)]
    for name in properties:
        assert getattr(home, name).is_relative_to(home.root), name
    run = home.run("x")
    for name in [name for name, value in vars(Run).items() if isinstance(value, property)]:
        assert getattr(run, name).is_relative_to(home.runs / "x"), name
    home.create()
    assert sorted(os.listdir(home.spool)) == ["asks", "control", "incoming", "rejected", "state"]
