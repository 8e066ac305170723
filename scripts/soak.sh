#!/bin/sh
# Long runs that CI has no time for: kills, fuzzing, and each sync left out in turn. About two hours.
#
#   scripts/soak.sh [KILLS] [FUZZTIME]     20000 kills, 10m for each fuzz test
set -eu

cd "$(dirname "$0")/.."
kills=${1:-20000}
fuzztime=${2:-10m}

go test -timeout 4h -run TestTorture -v -crash.kills="$kills" .
go test -timeout 4h -run TestEachSyncIsNeeded -v -ablation .
for fuzz in rewriter/FuzzRewrite globalsfile/FuzzOpen wal/FuzzReplay; do
	go test -run '^$' -fuzz "${fuzz#*/}\$" -fuzztime "$fuzztime" "./${fuzz%/*}"
done
