#!/usr/bin/env bash
# The main job, end to end: a daemon, files and streams of bytes in and out, a
# crash, and a Python program that shares the memory. Each command is printed
# before it runs.
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
PATH=$repo/bin:$PATH

python=$("$repo/interop/venv.sh") # the published client, installed into the checkout
dir=$(mktemp -d)
socket=$dir/v6d.sock
daemon=
cleanup() {
	if [ -n "$daemon" ] && kill -0 "$daemon" 2>/dev/null; then
		kill "$daemon"
		wait "$daemon" 2>/dev/null || true
	fi
	rm -rf "$dir"
}
trap cleanup EXIT

say() { printf '\n# %s\n' "$*"; }
run() {
	printf '$ %s\n' "$*"
	eval "$*"
}
start() {
	printf '$ v6d serve --socket %s --size 256MiB --rpc-listen off &\n' "$socket"
	v6d serve --socket "$socket" --size 256MiB --rpc-listen off 2>"$dir/log" >"$dir/banner" &
	daemon=$!
	for _ in $(seq 100); do
		if v6d status >/dev/null 2>&1; then
			cat "$dir/banner"
			return
		fi
		sleep 0.05
	done
	cat "$dir/log" >&2
	exit 1
}
export V6D_SOCKET=$socket VINEYARD_IPC_SOCKET=$socket

say "Start a daemon. It needs no other service."
start

say "Put a real file, under a name, and a stream of bytes from a pipe."
run "v6d put $repo/bin/v6d --name the-binary"
run "seq 1 1000000 | v6d put - > $dir/id; cat $dir/id"
numbers=$(cat "$dir/id")

say "See what is there."
run "v6d ls"
run "v6d meta the-binary"

say "Read both back: byte-identical."
run "v6d get the-binary | cmp - $repo/bin/v6d && echo identical"
run "v6d get $numbers $dir/numbers && seq 1 1000000 | cmp - $dir/numbers && echo identical"

say "A CSV file becomes a table, a data frame for Python, and a Parquet file."
printf 'day,price,qty\n2026-01-01,1.5,3\n2026-01-02,,4\n' > "$dir/sales.csv"
run "v6d put $dir/sales.csv --name sales"
run "v6d head sales"
run "v6d put $dir/sales.csv --type dataframe --name frame"
run "v6d get sales $dir/sales.parquet && ls -s $dir/sales.parquet"

say "Kill the daemon with -9, start it again on the same socket, read once more."
run "kill -9 $daemon"
wait "$daemon" 2>/dev/null || true
start
run "v6d get the-binary | cmp - $repo/bin/v6d && echo identical"
run "v6d get $numbers | cmp - <(seq 1 1000000) && echo identical"

say "A Python program with the published client maps the same memory, and puts a data frame."
cat >"$dir/share.py" <<'PY'
import sys
import pandas as pd
import vineyard

client = vineyard.connect(sys.argv[1])
array = client.get(client.get_name("the-binary"))
print(type(array).__name__, array.dtype, array.shape, "starts with", bytes(array[:4]))
frame = pd.DataFrame({"city": [1, 2, 3], "degrees": [21.5, 19.0, 24.25]})
id = client.put(frame, persist=True, name="weather")
print(client.get(id).equals(frame), id)
print(client.get(client.get_name("frame")))
PY
run "$python $dir/share.py $socket"
run "v6d get weather"
run "v6d ls"
run "v6d name ls"

say "Delete, and stop."
run "v6d rm weather the-binary sales frame $numbers"
run "v6d ls -q | wc -l"
run "kill $daemon"
wait "$daemon"
daemon=
run "ls $dir"
