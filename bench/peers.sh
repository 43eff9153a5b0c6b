#!/bin/sh
# Installs what v6d is measured against, beside the published client: Plasma (the
# last pyarrow that has it), LMDB and Redis' client into a venv of their own, the
# Redis server from the system's packages. What cannot be had is named in the
# table instead of being measured. scikit-learn, which trains at the end of the
# pipeline, goes into a folder beside the published client's packages.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
venv=$(dirname "$here")/.interop/plasma
python=$(dirname "$here")/.interop/venv/bin/python

if [ ! -x "$venv/bin/plasma_store" ]; then
	"$python" -m venv "$venv"
	timeout 1200 "$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
		'pyarrow==11.0.0' 'numpy<2' 'lmdb==3.0.0' 'redis==8.1.0'
fi
learn=$(dirname "$here")/.interop/learn
if [ ! -d "$learn/sklearn" ]; then
	timeout 1200 "$python" -m pip install --quiet --no-input --disable-pip-version-check --no-deps \
		--target "$learn" 'scikit-learn==1.5.2' 'joblib==1.4.2' 'threadpoolctl==3.5.0' ||
		echo "peers.sh: no scikit-learn: the pipeline's rows will say so" >&2
fi
if ! command -v redis-server >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
	DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -y -q redis-server >/dev/null ||
		echo "peers.sh: no redis-server: its rows will say so" >&2
fi
