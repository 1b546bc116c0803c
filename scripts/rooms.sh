#!/bin/sh
# Links each room as a shared object against the rooms above it and nothing else, with -z defs: a use of something below, or of
# something a room does not export, fails here.   rooms.sh OUT OBJECTS ROOM...   OBJECTS: plain ones, -O0 -fPIC
# Prints "ok rooms ROOM" or "not ok rooms ROOM" for each room with sources, then "N passed, N failed".
set -u
export LC_ALL=C
build=$1 objects=$2
shift 2
cc=${CC:-cc}
above='' passed=0 failed=0
for room in "$@"; do
    set --
    for o in "$objects/src/$room"/*.o "$objects/gen/$room"_*.o; do
        [ -f "$o" ] || continue
        grep -qF "$o" "$objects/members" && set -- "$@" "$o"
    done
    [ $# -gt 0 ] || continue
    # shellcheck disable=SC2086
    if $cc -shared -pthread -Wl,-z,defs -o "$build/libmdr_$room.so" "$@" -L"$build" $above \
           -Wl,-rpath-link,"$build" -lsqlite3 -ljansson -lyaml -lmd -lm > "$build/$room.log" 2>&1; then
        echo "ok rooms $room"
        passed=$((passed + 1))
    else
        echo "not ok rooms $room"
        grep -oE "(undefined reference to|hidden symbol|multiple definition of) .*" "$build/$room.log" | sort -u | head -20 |
            sed 's/^/      /'
        failed=$((failed + 1))
        # so that the rooms below are judged by their own uses
        # shellcheck disable=SC2086
        $cc -shared -pthread -o "$build/libmdr_$room.so" "$@" -L"$build" $above > /dev/null 2>&1
    fi
    if [ -f "$build/libmdr_$room.so" ]; then above="$above -lmdr_$room"; fi
done
if [ $((passed + failed)) -eq 0 ]; then failed=1; fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
