#!/bin/sh
# Installs what is missing:  deps.sh build   what building and the tests need;   deps.sh all   also what check, fuzz and figures need.
# With everything there it says nothing and is done at once, network or not. On Debian and Ubuntu it prints the exact command
# and runs it as root or through `sudo -n`; it asks only on a terminal and waits while another dpkg holds the lock. DEPS=no: names
# what is missing and stops. Other Linux systems: the package names for their manager.
set -u
export LC_ALL=C
what=${1:-build}
# The plain list serves apt; the others are the same things in the same order under their managers' names.
apt_build="g++ libsqlite3-dev libjansson-dev libyaml-dev librandom123-dev libmd-dev libcmocka-dev"
apt_all="clang libclang-rt-dev valgrind libopenblas-dev libblis-dev libfftw3-dev"
dnf_build="gcc gcc-c++ make sqlite-devel jansson-devel libyaml-devel Random123-devel libmd-devel libcmocka-devel"
dnf_all="clang compiler-rt valgrind openblas-devel blis-devel fftw-devel"
pacman_build="gcc make sqlite jansson libyaml random123 libmd cmocka"
pacman_all="clang compiler-rt valgrind openblas blis fftw"
zypper_build="gcc gcc-c++ make sqlite3-devel libjansson-devel libyaml-devel Random123-devel libmd-devel libcmocka-devel"
zypper_all="clang valgrind openblas-devel blis-devel fftw3-devel"
apk_build="gcc g++ make musl-dev sqlite-dev jansson-dev yaml-dev random123-dev libmd-dev cmocka-dev"
apk_all="clang compiler-rt valgrind openblas-dev blis-dev fftw-dev"

say() { echo "madras: $*" >&2; }

# Does a program with all these headers and libraries compile and link? Then nothing is missing, wherever it came from.
works() {
    command -v "${CC:-cc}" > /dev/null 2>&1 || return 1
    command -v "${CXX:-g++}" > /dev/null 2>&1 || return 1     # tests compile the GPU's kernels for this processor
    dir=$(mktemp -d) || return 1
    cat > "$dir/probe.c" <<'C'
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <jansson.h>
#include <yaml.h>
#include <Random123/philox.h>
#include <sys/types.h>
#include <sha256.h>
#include <cmocka.h>
int main(void) {
    SHA256_CTX c;
    SHA256Init(&c);
    return sqlite3_libversion_number() == 0 || json_null() == NULL || yaml_get_version_string() == NULL;
}
C
    # shellcheck disable=SC2086
    "${CC:-cc}" -o "$dir/probe" "$dir/probe.c" -lsqlite3 -ljansson -lyaml -lmd -lcmocka > /dev/null 2>&1
    rc=$?
    rm -rf "$dir"
    return $rc
}
works_all() {
    for tool in clang valgrind; do command -v $tool > /dev/null 2>&1 || return 1; done
    works || return 1
    echo 'int main(void){return 0;}' | clang -x c -fsanitize=address -o /dev/null - \
        -Wl,--no-as-needed -lopenblas -lblis -lfftw3 > /dev/null 2>&1
}

not_installed() {                                   # of the packages given, those dpkg does not have
    for p in "$@"; do
        s=$(dpkg-query -W -f='${db:Status-Status}' "$p" 2> /dev/null) || s=
        [ "$s" = installed ] || echo "$p"
    done
}

if [ "$(uname -s)" = Darwin ]; then
    say "macOS is not supported yet: build madras on a Linux machine, or here in a Linux container or virtual machine"
    exit 1
fi

if command -v dpkg-query > /dev/null 2>&1 && command -v apt-get > /dev/null 2>&1; then
    # shellcheck disable=SC2086
    if [ "$what" = all ]; then missing=$(not_installed $apt_build $apt_all); else missing=$(not_installed $apt_build); fi
    command -v "${CC:-cc}" > /dev/null 2>&1 || missing="gcc libc6-dev $missing"
    missing=$(echo $missing)
    if [ -z "$missing" ]; then exit 0; fi
    if [ "$what" = all ]; then works_all && exit 0; else works && exit 0; fi
else
    if [ "$what" = all ]; then works_all && exit 0; else works && exit 0; fi
    for m in dnf pacman zypper apk; do
        command -v $m > /dev/null 2>&1 || continue
        case $m in pacman) verb="-S --needed" ;; apk) verb=add ;; *) verb=install ;; esac
        eval "list=\$${m}_build"
        # shellcheck disable=SC2154
        if [ "$what" = all ]; then eval "list=\"\$list \$${m}_all\""; fi
        say "something is missing; on this system: $m $verb $list"
        say "(a package that $m lacks: Random123 is a folder of headers, github.com/DEShawResearch/random123)"
        exit 1
    done
    say "something is missing and no known package manager is here; wanted are a C compiler and the development files of SQLite," \
        "jansson, libyaml, Random123, libmd and cmocka"
    exit 1
fi

if [ "${DEPS:-}" = no ]; then
    say "missing packages: $missing"
    exit 1
fi
sudo=
if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo > /dev/null 2>&1 && sudo -n true 2> /dev/null; then sudo="sudo -n "
    elif command -v sudo > /dev/null 2>&1 && [ -t 0 ]; then sudo="sudo "
    else
        say "missing packages; as root run: apt-get update && apt-get install -y --no-install-recommends $missing"
        exit 1
    fi
fi
update="${sudo}apt-get update"
install="${sudo}env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends $missing"
say "installing what is missing:"
echo "  $update" >&2
echo "  $install" >&2
if [ -t 0 ]; then
    printf 'run it? [Y/n] ' >&2
    read -r answer || answer=n
    case $answer in '' | y | Y | yes) ;; *) say "nothing installed"; exit 1 ;; esac
fi
log=$(mktemp)
for attempt in 1 2 3 4 5 6 7 8 9 10; do             # the lists' lock knows no timeout of its own
    $update > "$log" 2>&1 && break
    grep -q 'get lock' "$log" || { say "the package lists could not be renewed (no network?), trying with the old ones"; break; }
    [ "$attempt" = 10 ] || sleep 5
done
rm -f "$log"
if ! $install >&2 < /dev/null; then
    say "the packages could not be installed: $missing"
    exit 1
fi
