#!/bin/sh
# Bad input and bad machines: one sentence on standard error, the right exit code, nothing on standard output, no crash. The cases
# are the lines of test/cli/errors.txt:  EXIT CODE | COMMAND LINE | PATTERN   (a space on either side; the pattern is an ERE)
. "$(dirname "$0")/cli/cli.sh"
printf 'base: taste\ntasks: {nothing: {}}\n' > badtask.yml
printf 'base: taste\ntrain: [1,\n' > broken.yml
printf 'base: taste\ntrain: {lr: 1e9}\n' > bounds.yml
printf 'base: taste\ndevice: tpu\n' > device.yml
printf 'bas: taste\n' > key.yml
printf 'base: self.yml\n' > self.yml
: > empty.yml
printf 'not a store, but long enough to be looked at: %0600d\n' 0 > foreign.db
"$MADRAS" bench --protocol tiny.yml --store good.db --tasks compression mamba > /dev/null 2>&1
head -c 6000 good.db > cut.db
{ head -c 60 good.db; printf '\0\0\0\143'; tail -c +65 good.db; } > newer.db       # user_version 99
{ head -c 60 good.db; printf '\0\0\0\001'; tail -c +65 good.db; } > older.db
mkdir -p folder closed
t="train --task in-context-recall --arch mamba $small"
"$MADRAS" $t --checkpoint good.bin > /dev/null
"$MADRAS" $t --checkpoint other.bin --seed 2 > /dev/null
head -c 500 good.bin > cut.bin
bench="bench --protocol tiny.yml --store scratch.db"
run() {                                              # run CODE COMMAND PATTERN
    eval "\"\$MADRAS\" $2" > case.out 2> case.err
    rc=$?
    case $3 in '^'*) pattern=$3 ;; *) pattern="^madras: .*$3" ;; esac
    if [ $rc -eq "$1" ] && [ ! -s case.out ] && [ "$(wc -l < case.err)" -eq 1 ] && grep -qE "$pattern" case.err; then ok "$2"; else
        no "$2" case.err
        echo "# exit $rc, wanted $1 and: $3"
    fi
}
while IFS= read -r line; do
    case $line in '#'* | '') continue ;; esac
    code=${line%% | *} rest=${line#* | }
    run "$code" "${rest% | *}" "${rest##* | }"
done < "$cli/errors.txt"

sentence() {                                         # sentence NAME CODE PATTERN: rc, err hold what came
    if [ "$rc" -eq "$2" ] && [ "$(wc -l < err)" -eq 1 ] && grep -qE "^madras: .*$3" err; then ok "$1"; else
        no "$1" err
        echo "# exit $rc, wanted $2 and: $3"
    fi
}
# A checkpoint is met after the trial has said what it is.
"$MADRAS" $t --checkpoint cut.bin > out 2> err; rc=$?
sentence "a checkpoint cut short" 2 "checkpoint cut\.bin: it is damaged or cut short"
"$MADRAS" $t --checkpoint other.bin > out 2> err; rc=$?
sentence "another trial's checkpoint" 2 "checkpoint other\.bin: it holds another trial"
"$MADRAS" $t --checkpoint folder > out 2> err; rc=$?
sentence "a folder as checkpoint" 2 "checkpoint: folder: is a folder, not a file$"

# The machine fails.
"$MADRAS" list tasks > /dev/full 2> err; rc=$?
sentence "full standard output: list" 1 "cannot write to standard output: No space left"
"$MADRAS" $t > /dev/full 2> err; rc=$?
sentence "full standard output: train" 1 "cannot write to standard output: No space left"
"$MADRAS" bench --protocol tiny.yml --store full.db --tasks compression mamba > /dev/full 2> err; rc=$?
sentence "full standard output: bench" 1 "cannot write to standard output: No space left"
"$MADRAS" show --store full.db > kept.txt
check "... and its trial is kept" grep -q mamba kept.txt
"$MADRAS" --help >&- 2> err; rc=$?
sentence "closed standard output: --help" 1 "cannot write to standard output"
"$MADRAS" bench --protocol tiny.yml --store closed.db --tasks compression mamba >&- 2> err; rc=$?
sentence "closed standard output: bench" 1 "cannot write to standard output"
check "... and its store is whole" "$MADRAS" show --store closed.db
"$MADRAS" $t --checkpoint closed.bin >&- 2> /dev/null <&-
check "closed standard output: the checkpoint is whole" "$MADRAS" $t --checkpoint closed.bin
"$MADRAS" list primitives 2> err | head -1 > /dev/null
check "| head is no error" test ! -s err
if (ulimit -f 8) 2> /dev/null; then
    (trap '' XFSZ; ulimit -f 8; "$MADRAS" $t --checkpoint big.bin 2> err > /dev/null); rc=$?
    sentence "a full disk: checkpoint" 1 "cannot be written: (File too large|No space left)"
    check "... leaves no scratch" sh -c '! ls big.bin* 2> /dev/null'
    (trap '' XFSZ; ulimit -f 8; "$MADRAS" bench --protocol tiny.yml --store big.db mamba 2> err > /dev/null); rc=$?
    sentence "a full disk: store" 1 "big\.db: .*(disk is full|File too large|not stored)"
    (trap '' XFSZ; ulimit -f 1; "$MADRAS" data --task compression --out big 2> err > /dev/null); rc=$?
    sentence "a full disk: data" 1 "cannot write big/train/inputs.npy: (File too large|No space left)"
    check "... leaves no half of a file" test ! -e big/train/inputs.npy
else skip "a full disk: no ulimit -f"; fi
if (ulimit -v 2000000 && "$MADRAS" --version) > /dev/null 2>&1; then
    (ulimit -v 2000000; "$MADRAS" train --task compression --arch mamba --set dim=4096 --set batch_size=4096 > out 2> err); rc=$?
    sentence "not enough memory" 1 "(not enough|out of) memory"
else skip "not enough memory: the address space cannot be limited here"; fi
if [ "$(id -u)" -ne 0 ]; then
    chmod a-w closed
    "$MADRAS" $t --checkpoint closed/c.bin > out 2> err; rc=$?
    sentence "a folder that cannot be written to: checkpoint" 2 "cannot write closed/c.bin: Permission denied"
    "$MADRAS" bench --protocol tiny.yml --store closed/s.db mamba > out 2> err; rc=$?
    sentence "a folder that cannot be written to: store" 2 "closed/s.db"
else skip "a folder that cannot be written to: run by root"; fi
exit $failed
