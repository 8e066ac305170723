#!/bin/sh
# Rebuilds the guests of testdata/ elsewhere and compares them, byte for byte, with those committed.
#
#   scripts/check-guests.sh [--all]
#
# A kind whose tool is missing, or is not of the version that built the committed binaries (another
# version makes other bytes), is left out with a message; with --all that is a failure.
set -eu

CLANG=${CLANG:-/usr/bin/clang}
RUSTC=${RUSTC:-/usr/bin/rustc}
export CLANG RUSTC

all=
case ${1-} in
--all) all=1 ;;
'') ;;
*)
	echo "usage: $0 [--all]" >&2
	exit 2
	;;
esac

repo=$(cd "$(dirname "$0")/.." && pwd)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
status=0
kinds=

# want KIND VERSION PACKAGES COMMAND...: takes KIND if COMMAND answers with VERSION in its first line.
want() {
	kind=$1 version=$2 packages=$3
	shift 3
	if found=$("$@" 2>/dev/null | head -n 1) && [ -n "$found" ]; then
		case " $found " in
		*" $version "*)
			kinds="$kinds $kind"
			return
			;;
		esac
		echo "$kind guests not checked: built with version $version, but $1 is: $found"
	else
		echo "$kind guests not checked: no $1 (Debian packages: $packages)"
	fi
	if [ -n "$all" ]; then
		status=1
	fi
}

want wat 1.0.32 wabt wat2wasm --version
want c 14.0.6 'clang lld wasi-libc libclang-rt-dev-wasm32' "$CLANG" --version
want rust 1.63.0 'rustc libstd-rust-dev-wasm32' "$RUSTC" --version

for kind in $kinds; do
	mkdir "$tmp/$kind"
	if ! "$repo/scripts/build-guests.sh" --out "$tmp/$kind" "$kind"; then
		echo "$kind guests: not built"
		status=1
		continue
	fi
	for built in "$tmp/$kind"/*.wasm "$tmp/$kind"/bad/*.wasm; do
		[ -e "$built" ] || continue
		name=${built#"$tmp/$kind/"}
		if cmp -s "$built" "$repo/testdata/$name"; then
			echo "$name" >>"$tmp/same"
		else
			echo "testdata/$name is not what its source builds (run: scripts/build-guests.sh $kind)"
			status=1
		fi
	done
done

# A binary that nothing here has built has lost its source.
if [ "$kinds" = " wat c rust" ]; then
	for committed in "$repo"/testdata/*.wasm "$repo"/testdata/bad/*.wasm; do
		name=${committed#"$repo/testdata/"}
		if ! [ -e "$tmp/wat/$name" ] && ! [ -e "$tmp/c/$name" ] && ! [ -e "$tmp/rust/$name" ]; then
			echo "testdata/$name has no source"
			status=1
		fi
	done
fi

touch "$tmp/same"
echo "$(wc -l <"$tmp/same") guests are what their sources build"
exit $status
