#!/bin/sh
# Creates .interop/venv in the checkout with the packages of requirements.txt.
# Does nothing when it is there and up to date. Prints the path of its python.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$(dirname "$here")/.interop
venv=$work/venv
stamp=$venv/requirements.sha256

sum=$(sha256sum <"$here/requirements.txt")
up_to_date() {
	[ -x "$venv/bin/python" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ]
}

if ! up_to_date; then
	python=
	for candidate in python3.11 python3; do
		if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
			python=$candidate
			break
		fi
	done
	if [ -z "$python" ]; then
		echo "venv.sh: needs Python 3.11 (python3.11, or a python3 of that version, in PATH)" >&2
		exit 1
	fi

	mkdir -p "$work"
	echo '*' >"$work/.gitignore"
	exec 9>"$work/venv.lock"
	flock -w 1200 9 || { echo "venv.sh: $work/venv.lock is held by another run" >&2; exit 1; }
	if ! up_to_date; then # nobody else built it while this one waited
		echo "venv.sh: installing the pinned packages into $venv" >&2
		rm -rf "$venv"
		"$python" -m venv "$venv"
		timeout 1200 "$venv/bin/python" -m pip install --quiet --no-input \
			--disable-pip-version-check -r "$here/requirements.txt" >&2
		echo "$sum" >"$stamp"
	fi
fi
echo "$venv/bin/python"
