#!/usr/bin/env bash
# How long snapshot, restore, fork and upgrade take for a state of 1 GiB, beside cp and zstd: a
# memory that is dense (each page has some random numbers), and one with 10 MiB of data. On the file
# system of DIR, and forks on XFS in a loop device (root only). docs/life.md has figures of it.
#
#   scripts/life-figures.sh DIR [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(mkdir -p "$1" && realpath "$1")
rounds=${2:-3}
work=$(mktemp -d "$dir/life-XXXXXX")
cleanup() {
	umount "$work/xfs" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
go build -o "$work/mmrun" ./cmd/mmrun
cp testdata/stores.wasm "$work/a.wasm"
# The next build is the same module with a custom section.
{ cat testdata/stores.wasm; printf '\0\5\4next'; } >"$work/b.wasm"
cd "$work"

# timed NAME COMMAND...: the median of some rounds, in milliseconds.
timed() {
	local name=$1 all=()
	shift
	for _ in $(seq "$rounds"); do
		rm -rf made made.* a.state.previous
		sync
		local start end
		start=$(date +%s%N)
		"$@" >/dev/null
		end=$(date +%s%N)
		all+=($(((end - start) / 1000000)))
	done
	printf '%-36s %6d ms\n' "$name" "$(printf '%s\n' "${all[@]}" | sort -n | sed -n "$(((rounds + 1) / 2))p")"
}

upgrade_and_back() {
	./mmrun upgrade a.state b.wasm --keep-memory
	./mmrun upgrade a.state --undo
}

for kind in dense sparse; do
	rm -rf a.state s.snapshot
	./mmrun call a.wasm grow 16383 >/dev/null
	case $kind in
	dense) # the guest's random stores, until hardly a page is without
		for seed in 1 2 3 4 5; do ./mmrun call a.wasm random "$seed" 4000000 >/dev/null; done ;;
	sparse) ./mmrun call a.wasm fill 0 10485760 7 >/dev/null ;;
	esac
	./mmrun checkpoint a.state >/dev/null
	echo "== 1 GiB, $kind: $(du -m a.state/memory | cut -f1) MiB on the disk"
	timed "mmrun snapshot" ./mmrun snapshot a.state -o made
	./mmrun snapshot a.state -o s.snapshot >/dev/null
	echo "   the snapshot has $(du -m s.snapshot | cut -f1) MiB"
	timed "mmrun restore" ./mmrun restore s.snapshot --state made
	timed "mmrun fork" ./mmrun fork a.state made
	timed "mmrun upgrade, and --undo" upgrade_and_back
	timed "cp --sparse=always, sync" sh -c 'cp --sparse=always --reflink=never -r a.state made && sync made/memory'
	if command -v zstd >/dev/null; then
		timed "zstd -1 -T1" zstd -q -1 -T1 a.state/memory -o made
		timed "zstd -1 -T2" zstd -q -1 -T2 a.state/memory -o made
	fi
	if [ "$(id -u)" = 0 ] && command -v mkfs.xfs >/dev/null; then
		truncate -s 6G xfs.image && mkfs.xfs -q -f xfs.image && mkdir -p xfs && mount -o loop xfs.image xfs
		cp --sparse=always -r a.state xfs/a.state
		sync
		cp mmrun xfs
		(cd xfs && timed "mmrun fork, on XFS" ./mmrun fork a.state made)
		umount xfs && rm xfs.image
	fi
done
