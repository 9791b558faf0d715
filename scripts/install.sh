#!/bin/sh
# Installs this checkout as a system service: PREFIX (a virtual environment), the user `loopd`, the unit.
# Run by `make install PREFIX=/opt/loopd`. Running it again upgrades; data in /var/lib/loopd is never touched.
set -eu

prefix=${1:?usage: scripts/install.sh PREFIX [PYTHON]}
python=${2:-python3}
unit_directory=${UNIT_DIRECTORY:-/etc/systemd/system}
source_directory=$(cd "$(dirname "$0")/.." && pwd)

fail() {
    echo "install: $1" >&2
    exit 1
}

case $prefix in
    *[!A-Za-z0-9/._-]*) fail "PREFIX may hold letters, digits and / . _ - only" ;;
    /*) ;;
    *) fail "PREFIX must be an absolute path, as in PREFIX=/opt/loopd" ;;
esac
[ "$(id -u)" -eq 0 ] || fail "needs root, to make the user loopd and install the unit (sudo make install)"

if ! id loopd >/dev/null 2>&1; then
    useradd --system --user-group --home-dir /var/lib/loopd --no-create-home --shell /usr/sbin/nologin loopd
fi
[ -d /var/lib/loopd ] || install -d -o loopd -g loopd -m 0700 /var/lib/loopd

"$python" -m venv "$prefix"
runuser -u loopd -- "$prefix/bin/python" -c "" 2>/dev/null || fail \
    "the user loopd cannot run $prefix/bin/python, which is $(readlink -f "$prefix/bin/python").
  A Python below a home directory is closed to it: remove $prefix, and make install PYTHON=/usr/bin/python3"
"$prefix/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
    --requirement "$source_directory/requirements.lock"
"$prefix/bin/python" -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps \
    --force-reinstall "$source_directory"

install -d "$unit_directory"
sed "s|/opt/loopd/|$prefix/|g" "$source_directory/systemd/loopd.service" >"$unit_directory/loopd.service.new"
chmod 0644 "$unit_directory/loopd.service.new"
mv "$unit_directory/loopd.service.new" "$unit_directory/loopd.service"
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi

echo "loopd $("$prefix/bin/loopd" --version) is installed in $prefix. Next:"
echo "  sudo -u loopd $prefix/bin/loopd init /var/lib/loopd --node-id ... (loopd init --help)"
echo "  sudo systemctl enable --now loopd"
