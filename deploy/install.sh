#!/usr/bin/env bash
# Installs the runner and the web app as systemd services; again over itself it upgrades them.
# Run as: sudo deploy/install.sh [options]        (docs/service.md tells it step by step)
#   --prefix DIR    where the code goes              (default /opt/gemma-finetuner)
#   --home DIR      the data home                    (default /var/lib/finetuner)
#   --port N        the web app's port on 127.0.0.1  (default 8501)
#   --token FILE    a Hugging Face token, for models behind a licence; --no-token takes it away again
#   --sign-in FILE  [auth] and [access] of the web app (docs/admin.md); --no-sign-in takes them away again
#   --no-packages   .venv and the embedded model are in place already
#   --no-start      install, and start nothing
#   --root DIR      into a folder that stands for / (for images and tests): starts nothing, installs no packages
#   --uninstall     stops and removes everything but the data home; with --purge, the data home and the users too
# What was chosen stands in /etc/finetuner/install.conf and is the default the next time.
set -euo pipefail

source_dir=$(cd "$(dirname "$0")/.." && pwd)
root='' start=yes packages=yes token='' forget_token=no sign_in='' forget_sign_in=no uninstall=no purge=no
sign_in_checked=no prefix='' home='' port=''
UNITS="finetuner-runner.service finetuner-web.service"
CODE="README.md LICENSE NOTICE pyproject.toml requirements-cpu.lock requirements-gpu.lock requirements-dev.lock
requirements-onnx.lock requirements-gptq.lock requirements-benchmarks.lock streamlit_app.py .streamlit deploy docs examples
pages runner spool"

say() { printf '== %s\n' "$*"; }
refuse() { printf 'install: %s\n' "$*" >&2; exit 2; }

read_options() {
  while [ $# -gt 0 ]; do
    case $1 in
      --prefix | --home | --port | --token | --sign-in | --root)
        [ $# -ge 2 ] && [ -n "$2" ] || refuse "$1 needs a value."
        case $1 in
          --prefix) prefix=${2%/} ;; --home) home=${2%/} ;; --port) port=$2 ;; --token) token=$2 ;; --sign-in) sign_in=$2 ;; --root) root=${2%/} ;;
        esac
        shift ;;
      --no-packages) packages=no ;;
      --no-start) start=no ;;
      --no-token) forget_token=yes ;;
      --no-sign-in) forget_sign_in=yes ;;
      --uninstall) uninstall=yes ;;
      --purge) purge=yes ;;
      -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"; exit 0 ;;
      *) refuse "there is no option $1. --help lists them." ;;
    esac
    shift
  done
}

fill_in_defaults() {
  local conf=$root/etc/finetuner/install.conf kept=''
  if [ -f "$conf" ]; then kept=$(cat "$conf"); fi
  chosen() { printf '%s\n' "$kept" | sed -n "s/^$1=//p"; }
  prefix=${prefix:-$(chosen prefix)}; prefix=${prefix:-/opt/gemma-finetuner}
  home=${home:-$(chosen home)}; home=${home:-/var/lib/finetuner}
  port=${port:-$(chosen port)}; port=${port:-8501}
}

check_options() {
  if [ "$purge" = yes ] && [ "$uninstall" = no ]; then refuse "--purge deletes the data home: it goes with --uninstall only."; fi
  if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then refuse "this needs root. Run: sudo $0 $*"; fi
  [[ $port =~ ^[0-9]+$ ]] && [ "$port" -ge 1 ] && [ "$port" -le 65535 ] || refuse "--port $port: a port is a number from 1 to 65535."
  local folder
  for folder in "$prefix" "$home"; do
    [[ $folder =~ ^(/[A-Za-z0-9._-]+){2,}$ ]] || refuse "$folder: give an absolute folder below /, of letters, digits, dots and dashes."
    [[ $folder =~ (^|/)\.\.?(/|$) ]] && refuse "$folder: give the folder without . and .. in it."
    case $folder/ in
      /home/* | /root/* | /tmp/* | /var/tmp/* | /run/* | /dev/* | /proc/* | /sys/*)
        refuse "$folder: the services cannot see /home, /root and temporary folders. Choose one below /opt, /srv or /var/lib." ;;
    esac
  done
  case $home/ in "$prefix"/*) refuse "the data home $home lies in the code's folder $prefix, which an upgrade replaces." ;; esac
  if [ -n "$token" ] && [ ! -s "$token" ]; then refuse "--token $token: there is no such file, or it is empty."; fi
  if [ -n "$sign_in" ] && [ ! -s "$sign_in" ]; then refuse "--sign-in $sign_in: there is no such file, or it is empty."; fi
  if [ "$source_dir" != "$root$prefix" ] && [ -e "$source_dir/.streamlit/secrets.toml" ]; then
    refuse ".streamlit/secrets.toml would be copied to where everybody can read it. Move it away and name it: --sign-in FILE."
  fi
}

has_systemd() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

copy_code() {
  if [ "$source_dir" = "$root$prefix" ]; then return; fi
  say "copying the code to $prefix"
  mkdir -p "$root$prefix"
  local name
  for name in $CODE; do
    rm -rf "$root${prefix:?}/$name.new"
    cp -R "$source_dir/$name" "$root$prefix/$name.new"
    rm -rf "$root${prefix:?}/$name"
    mv "$root$prefix/$name.new" "$root$prefix/$name"
  done
  find "$root$prefix" -path "$root$prefix/.venv*" -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
  chmod -R u=rwX,go=rX "$root$prefix/pages" "$root$prefix/runner" "$root$prefix/spool" "$root$prefix/deploy" "$root$prefix/.streamlit"
}

install_packages() {
  if [ -n "$root" ] || [ "$packages" = no ]; then return; fi
  (umask 022 && "$prefix/deploy/setup.sh")
  local interpreter
  interpreter=$(readlink -f "$prefix/.venv/bin/python")
  case $interpreter in
    /home/* | /root/*) refuse "$interpreter lies where the services cannot see it. Remove $prefix/.venv and run again with PYTHON=/usr/bin/python3." ;;
  esac
}

# This machine's own names, and the one that the sign-in leads back to.
names_served() {
  local name
  name=$(sed -n 's|^ *redirect_uri *= *"https\{0,1\}://\([^/:"]*\).*|\1|p' "$1" | head -n 1)
  printf '%s' "localhost 127.0.0.1 [::1]${name:+ $name}"
}

# Before anything is stopped, where the packages are there already; at a first installation once they are.
check_sign_in() {
  local python=$root$prefix/.venv/bin/python said
  if [ -z "$sign_in" ] || [ "$sign_in_checked" = yes ] || ! [ -x "$python" ]; then return; fi
  if ! said=$(export STREAMLIT_SECRETS_FILES PYTHONPATH=$source_dir PYTHONDONTWRITEBYTECODE=1
    export STREAMLIT_SERVER_ALLOWED_HOSTS="$(names_served "$sign_in")"
    STREAMLIT_SECRETS_FILES=$(realpath "$sign_in")
    cd "$source_dir" && "$python" -m streamlit run deploy/serve.py --server.port 0 -- --check 2>&1); then
    printf '%s\n' "$said" >&2
    refuse "--sign-in $sign_in cannot be used, as said above; nothing was changed."
  fi
  sign_in_checked=yes
}

placed() { sed -e "s|/opt/gemma-finetuner|$prefix|g" -e "s|/var/lib/finetuner|$home|g" -e "s|8501|$port|g" "$source_dir/deploy/systemd/$1"; }

# What of the GPU the runner may open. The numbers and names differ by driver, so they are read where it is installed.
gpu_rules() {
  local names nodes
  names=$(sed -n 's/^ *[0-9]\+ \(nvidia[A-Za-z0-9_-]*\)$/\1/p' "$root/proc/devices" 2>/dev/null | sort -u)
  if [ -z "$names" ]; then return; fi
  printf '# Made by deploy/install.sh from /proc/devices; run it again after a change of the driver.\n[Service]\n'
  # nvidia-uvm is often loaded by the first program that computes
  printf '%s\nnvidia-uvm\n' "$names" | sort -u | sed 's/.*/DeviceAllow=char-& rw/'
  nodes=$(stat -c %G "$root"/dev/nvidia[0-9]* 2>/dev/null | sort -u | grep -vx root || true)
  if [ -n "$nodes" ]; then printf 'SupplementaryGroups=%s\n' "$(echo $nodes)"; fi
}

write_units() {
  local etc=$root/etc unit extra=$root/etc/systemd/system/finetuner-runner.service.d
  local web=$root/etc/systemd/system/finetuner-web.service.d
  say "writing the units"
  mkdir -p "$etc/systemd/system" "$etc/sysusers.d" "$etc/tmpfiles.d" "$etc/finetuner" "$extra"
  for unit in $UNITS; do placed "$unit" >"$etc/systemd/system/$unit"; done
  placed sysusers.conf >"$etc/sysusers.d/finetuner.conf"
  placed tmpfiles.conf >"$etc/tmpfiles.d/finetuner.conf"
  printf 'prefix=%s\nhome=%s\nport=%s\n' "$prefix" "$home" "$port" >"$etc/finetuner/install.conf"
  local gpu
  gpu=$(gpu_rules)
  if [ -n "$gpu" ]; then printf '%s\n' "$gpu" >"$extra/10-gpu.conf"; else rm -f "$extra/10-gpu.conf"; fi
  if [ -n "$token" ]; then
    install -m 0600 "$token" "$etc/finetuner/hf_token"
    printf '[Service]\nLoadCredential=hf_token:/etc/finetuner/hf_token\n' >"$extra/20-token.conf"
  elif [ "$forget_token" = yes ]; then
    rm -f "$etc/finetuner/hf_token" "$extra/20-token.conf"
  fi
  if [ -n "$sign_in" ]; then
    mkdir -p "$web"
    install -m 0600 "$sign_in" "$etc/finetuner/sign-in.toml"
    # The credential lies in /run/credentials, which the web app must not see otherwise.
    printf '[Service]\nLoadCredential=sign-in.toml:/etc/finetuner/sign-in.toml\nEnvironment=STREAMLIT_SECRETS_FILES=%%d/sign-in.toml\nInaccessiblePaths=\nInaccessiblePaths=-/etc/finetuner\n' >"$web/20-sign-in.conf"
    printf 'Environment="STREAMLIT_SERVER_ALLOWED_HOSTS=%s"\n' "$(names_served "$sign_in")" >>"$web/20-sign-in.conf"
  elif [ "$forget_sign_in" = yes ]; then
    rm -f "$etc/finetuner/sign-in.toml" "$web/20-sign-in.conf"
  fi
  mkdir -p "$root/usr/local/bin"
  printf '#!/bin/sh\nFINETUNER_HOME=${FINETUNER_HOME:-%s} exec %s/.venv/bin/finetuner "$@"\n' "$home" "$prefix" >"$root/usr/local/bin/finetuner"
  chmod 0755 "$root/usr/local/bin/finetuner"
}

make_users_and_folders() {
  local into=()
  if [ -n "$root" ]; then
    if [ "$(id -u)" != 0 ]; then say "not root: users and folders are made when the image boots"; return; fi
    into=(--root="$root")
  fi
  mkdir -p "$root$(dirname "$home")"
  systemd-sysusers "${into[@]}" finetuner.conf
  systemd-tmpfiles "${into[@]}" --create finetuner.conf
}

start_services() {
  if ! has_systemd; then say "systemd does not run here: nothing was started"; return; fi
  if [ "$packages" = yes ]; then
    say "preparing the embedded model"
    runuser -u finetuner -- env PYTHONDONTWRITEBYTECODE=1 "$prefix/.venv/bin/python" -m runner.embed --home "$home"
  fi
  systemctl daemon-reload
  if [ "$start" = no ]; then say "installed; start it with: systemctl enable --now $UNITS"; return; fi
  # shellcheck disable=SC2086
  systemctl enable --quiet --now $UNITS || refuse "a service did not start. See: journalctl -u finetuner-runner -u finetuner-web"
  say "running: http://127.0.0.1:$port   (systemctl status $UNITS)"
  say "who may hand in jobs from the shell: usermod -aG finetuner-drop NAME"
}

remove() {
  local unit
  if has_systemd; then
    # shellcheck disable=SC2086
    systemctl disable --quiet --now $UNITS 2>/dev/null || true
  fi
  for unit in $UNITS; do rm -rf "$root/etc/systemd/system/$unit" "$root/etc/systemd/system/$unit.d"; done
  rm -f "$root/etc/sysusers.d/finetuner.conf" "$root/etc/tmpfiles.d/finetuner.conf" "$root/usr/local/bin/finetuner"
  rm -rf "$root/etc/finetuner"
  if [ -e "$root$prefix/.git" ]; then
    say "$prefix is a working copy: left as it is"
  elif grep -qs '^name = "gemma-finetuner"' "$root$prefix/pyproject.toml"; then
    rm -rf "$root${prefix:?}"
  fi
  if has_systemd; then systemctl daemon-reload; fi
  if [ "$purge" = no ]; then
    say "removed. The jobs, models and datasets stay in $home; --uninstall --purge --home $home deletes them."
    return
  fi
  if [ -d "$root$home/spool/state" ]; then rm -rf "$root${home:?}"; else say "$home is no data home: left as it is"; fi
  if [ -z "$root" ]; then
    userdel finetuner-web 2>/dev/null || true
    userdel finetuner 2>/dev/null || true
    for unit in finetuner-web finetuner-drop finetuner; do groupdel "$unit" 2>/dev/null || true; done
  fi
  say "removed, with all jobs, models and datasets"
}

read_options "$@"
fill_in_defaults
check_options "$@"
if [ "$uninstall" = yes ]; then remove; exit 0; fi
check_sign_in
restart=no
if has_systemd && systemctl is-active --quiet finetuner-runner.service; then
  say "stopping the services; a running job writes a checkpoint and goes on afterwards"
  restart=yes
fi
# shellcheck disable=SC2086
if has_systemd; then systemctl stop $UNITS 2>/dev/null || true; fi
copy_code
install_packages
check_sign_in
write_units
make_users_and_folders
if [ "$restart" = yes ] && [ "$start" = no ]; then say "the services were running and are stopped now"; fi
start_services
