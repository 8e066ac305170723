#!/bin/sh
# Builds the guests of testdata/ from their sources.
#
#   scripts/build-guests.sh [--out DIR] [wat] [c] [rust]
#
# Without a kind: all of them. The binaries go beside their sources, or under DIR. The Go guests are not
# built here: the tests that use them do it (internal/testkit/guests).
#
# Debian packages: wat: wabt; c: clang lld wasi-libc libclang-rt-dev-wasm32;
# rust: rustc libstd-rust-dev-wasm32. Debian's compilers are taken even if others are first on the PATH,
# because only they have the wasm targets for certain; CLANG and RUSTC name others.
set -eu

CLANG=${CLANG:-/usr/bin/clang}
RUSTC=${RUSTC:-/usr/bin/rustc}

repo=$(cd "$(dirname "$0")/.." && pwd)
out=$repo/testdata
if [ "${1-}" = --out ]; then
	mkdir -p "$2"
	out=$(cd "$2" && pwd)
	shift 2
fi
kinds=${*:-wat c rust}
mkdir -p "$out/bad"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# Relative names, so that no path of this machine gets into a binary.
cd "$repo/testdata"

build_wat() {
	for source in *.wat bad/*.wat; do
		flags=
		if [ "$source" = bad/shared_memory.wat ]; then
			flags=--enable-threads
		fi
		wat2wasm --debug-names $flags "$source" -o "$out/${source%.wat}.wasm"
	done
	# What is no module at all.
	: >"$out/bad/empty.wasm"
	head -c 100 "$out/grow.wasm" >"$out/bad/truncated.wasm"
	printf 'This is a text file whose name ends in .wasm.\n' >"$out/bad/notwasm.wasm"
}

build_c() {
	for source in *.c; do
		name=${source%.c}
		if [ "$name" = program ]; then # a command, at each level
			for level in 0 1 2 s; do
				"$CLANG" --target=wasm32-wasi -std=c11 -O$level -Wall -Wextra -Wno-unused-parameter \
					-Wno-implicit-fallthrough -Werror -c "$source" -o "$tmp/$name.o"
				"$CLANG" --target=wasm32-wasi -Wl,--strip-debug "$tmp/$name.o" -o "$out/${name}_O$level.wasm"
				chmod 644 "$out/${name}_O$level.wasm"
			done
			continue
		fi
		if [ "$name" = lines ]; then # a guest with debug information and without a library
			"$CLANG" --target=wasm32 -std=c11 -O0 -g -fdebug-compilation-dir=. -Wall -Wextra -Werror \
				-nostdlib -Wl,--no-entry "$source" -o "$out/$name.wasm"
			chmod 644 "$out/$name.wasm"
			continue
		fi
		# In two steps: given -O when it links, clang runs wasm-opt if there is one, which drops the names.
		"$CLANG" --target=wasm32-wasi -std=c11 -Os -Wall -Wextra -Werror -c "$source" -o "$tmp/$name.o"
		"$CLANG" --target=wasm32-wasi -mexec-model=reactor -Wl,--strip-debug "$tmp/$name.o" -o "$out/$name.wasm"
		chmod 644 "$out/$name.wasm"
	done
	"$CLANG" --target=wasm32-wasi -std=c11 -Os -Wall -Wextra -Werror -c ../examples/guestbook/c/guestbook.c \
		-o "$tmp/guestbook.o"
	"$CLANG" --target=wasm32-wasi -mexec-model=reactor -Wl,--strip-debug "$tmp/guestbook.o" \
		-o "$out/guestbook_c.wasm"
	chmod 644 "$out/guestbook_c.wasm"
}

rust_source() {
	case $1 in
	guestbook_rust) echo ../examples/guestbook/rust/guestbook.rs ;;
	*) echo "$1.rs" ;;
	esac
}

# rust NAME TARGET [FLAG...]
rust() {
	name=$1 target=$2
	shift 2
	"$RUSTC" --edition 2021 --target "$target" --crate-type cdylib \
		-C opt-level=s -C panic=abort -C strip=debuginfo "$@" "$(rust_source "$name")" -o "$out/$name.wasm"
	chmod 644 "$out/$name.wasm"
}

build_rust() {
	rust rust_minimal wasm32-unknown-unknown
	rust rust_kv wasm32-unknown-unknown
	rust rust_table wasm32-unknown-unknown -C opt-level=3
	# A reactor: without its start object the linker takes each export for a command, and runs
	# constructors before it and destructors after it, call by call.
	wasi=$("$RUSTC" --print sysroot)/lib/rustlib/wasm32-wasi/lib/self-contained
	rust rust_wasi wasm32-wasi -C link-arg="$wasi/crt1-reactor.o" -C link-arg=--export=_initialize
	rust guestbook_rust wasm32-wasi -C link-arg="$wasi/crt1-reactor.o" -C link-arg=--export=_initialize
}

for kind in $kinds; do
	case $kind in
	wat | c | rust) "build_$kind" ;;
	*)
		echo "build-guests.sh: unknown kind $kind (wat, c or rust)" >&2
		exit 2
		;;
	esac
done
