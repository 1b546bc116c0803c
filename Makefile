# madras. GNU make. `make help` lists the targets; scripts/ holds what is longer than a line.
#   CC=clang        another compiler: its objects live in $(BUILD)/clang
#   SAN=address     address and undefined-behaviour sanitizers; SAN=thread; objects in $(BUILD)/<cc>-<san>;  with EMU=1 also SAN=race
#   BUILD=dir       where everything is written (no spaces); the source tree may be read-only
#   TESTS='base_% ir_%' only these tests;  ROOMS="base ir" only these rooms;  WERROR=1 warnings are errors
#   CUDA=no|yes|DIR  the default builds the GPU's kernels where nvcc is found;  CUDA_ARCH='90 100': for which GPUs
#   EMU=1           the GPU's kernels compiled for this processor (test/emulator), for tests; objects in $(BUILD)/emu
#   V=1 commands are shown;  DEPS=no nothing is installed
ifeq ($(shell uname -s),Darwin)
$(error macOS is not supported yet: build madras on a Linux machine, or here in a Linux container or virtual machine)
endif
ifneq ($(filter 1.% 2.% 3.% 4.0 4.0.% 4.1 4.1.%,$(or $(MAKE_VERSION),1.0)),)
$(error GNU make 4.2 or newer is needed, this is $(MAKE_VERSION))
endif
MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

BUILD ?= build
ifneq ($(words $(BUILD)),1)
$(error BUILD must be one path without spaces, got "$(BUILD)")
endif
SAN ?=
CUDA ?= auto
CUDA_ARCH ?= 90
EMU ?=
PREFIX ?= /usr/local
DESTDIR ?=
ALL_ROOMS := base ir op exec layer model task train store study report cli
ROOMS ?= $(ALL_ROOMS)

# ---- variant: one folder of objects for each compiler and sanitizer; the plain one's products lie in $(BUILD) itself
ifeq ($(origin CC),default)
variant := obj
else
variant := $(notdir $(firstword $(CC)))
endif
plain := $(variant)
ifneq ($(SAN),)
variant := $(patsubst obj,cc,$(variant))-$(SAN)
endif
ifneq ($(EMU),)
variant := emu$(if $(SAN),-$(SAN))
endif
O := $(BUILD)/$(variant)
OUT := $(if $(filter obj,$(variant)),$(BUILD),$(O))
GEN := $(BUILD)/gen
BIN := $(OUT)/madras
LIB := $(OUT)/libmadras.a

# ---- flags
san_address := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
san_undefined := -fsanitize=undefined -fno-sanitize-recover=all
san_thread := -fsanitize=thread
# Races between the emulated GPU's threads: their kernels' accesses are looked at by test/emulator/race.cpp, no sanitizer is linked.
san_race := $(if $(EMU),-DEMU_RACE)
race_flags := $(if $(filter race,$(SAN)),-DEMU_RACE -fsanitize=thread)
san_fuzzer := $(san_address) -fsanitize=fuzzer-no-link
# No input of a fuzz target reaches the kernels' arithmetic, and clang takes minutes to instrument it; `make check` does with gcc.
cpu_san := $(if $(filter fuzzer,$(SAN)),-fno-sanitize=all)
ifneq ($(SAN),)
ifeq ($(san_$(SAN)),)
$(error SAN must be address, undefined, thread, race (with EMU=1) or (clang, made by `make fuzz`) fuzzer, got "$(SAN)")
endif
endif
ifeq ($(EMU)$(SAN),)
nvcc := $(if $(filter no,$(CUDA)),,$(if $(filter auto yes,$(CUDA)),$(or $(shell command -v nvcc 2>/dev/null),$(wildcard /usr/local/cuda/bin/nvcc)),$(CUDA)/bin/nvcc))
ifneq ($(filter-out auto no,$(CUDA)),)
ifeq ($(shell '$(nvcc)' --version 2>/dev/null),)
$(error CUDA=$(CUDA), but there is no nvcc$(if $(nvcc), at $(nvcc)): install the CUDA toolkit, name its folder (CUDA=DIR) or build without (CUDA=no))
endif
endif
endif
# Some kernels want 9.0's shared memory (attention's gradient 224 KB a block).
archs := $(if $(nvcc),$(shell printf '%s\n' $(CUDA_ARCH) | sort -n))
ifneq ($(filter 5% 6% 7% 8%,$(archs)),)
$(error CUDA_ARCH=$(CUDA_ARCH): the kernels need compute capability 9.0 (90) or newer)
endif
CXX ?= g++
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion $(if $(WERROR),-Werror)
OPT ?= -O2
BASE := -std=c17 -D_GNU_SOURCE -Isrc -I$(GEN) -fvisibility=hidden -pthread -g -ffp-contract=off -MMD -MP $(WARN) \
        $(san_$(SAN)) $(if $(EMU)$(nvcc),-DMDR_CUDA) $(CPPFLAGS)
F32 := -DREAL=float -DMDR_F32 -DMDR_DECLARE -Wdouble-promotion
F64 := -DREAL=double
X86 := $(findstring x86_64,$(shell $(CC) -dumpmachine 2>/dev/null))
LIBS := -lsqlite3 -ljansson -lyaml -lmd -lm
# Kernels that spill registers are refused: on a GPU a spill in a loop costs more than any cleverness that caused it.
NVCC_FLAGS := -std=c++20 -O3 -lineinfo -Isrc -I$(GEN) -DMDR_CUDA_LEAST=$(firstword $(archs)) $(foreach a,$(archs),-gencode arch=compute_$(a),code=sm_$(a)) \
        -gencode arch=compute_$(lastword $(archs)),code=compute_$(lastword $(archs)) \
        -Xptxas --warn-on-spills,-Werror -Xcompiler -Wall,-Wextra,-fvisibility=hidden,-fno-threadsafe-statics,-pthread,-g
# A GPU traps on an address that is not a multiple of the type's size: so does the emulated one.
EMU_FLAGS := -x c++ -std=c++20 -O1 -g -D_GNU_SOURCE -DMDR_CUDA -DMDR_CUDA_EMULATED -Isrc -I$(GEN) -Itest/emulator -fvisibility=hidden \
        -pthread -Wall -Wextra -Wno-unknown-pragmas -MMD -MP \
        $(or $(filter-out -DEMU_RACE,$(san_$(SAN))),-fsanitize=alignment -fsanitize-undefined-trap-on-error) $(race_flags) $(CPPFLAGS)
# The runtime is linked in and opens the driver itself: a binary built with CUDA starts on a machine without one.
CUDA_LIBS := $(if $(nvcc),-L$(dir $(nvcc))../lib64 -lcudart_static -lstdc++ -lrt -ldl -lpthread) $(if $(EMU),-lstdc++)

# ---- sources; generated tables (a file is rewritten only if its text changes)
no_tables := clean deps deps-all help
ifneq ($(filter-out $(no_tables),$(or $(MAKECMDGOALS),all)),)
tables := $(shell sh scripts/tables.sh "$(GEN)" 2>&1)
ifneq ($(.SHELLSTATUS),0)
$(error scripts/tables.sh: $(tables))
endif
endif
src := $(foreach r,$(ROOMS),$(sort $(wildcard src/$(r)/*.c)))
src_cpu := $(filter %.cpu.c,$(src))
src_ref := $(if $(filter src/op/%,$(src)),$(shell grep -lE '^const OpRow mdr_op_rows_|^\#include "op/reference\.h"' $(filter-out %.cpu.c,$(filter src/op/%,$(src))) /dev/null))
src_one := $(filter-out $(src_cpu) $(src_ref) src/cli/main.c,$(src))
gen := $(foreach r,$(ROOMS),$(if $(filter src/$(r)/%,$(src)),$(filter $(GEN)/$(r)_%,$(tables))))
obj := $(src_one:%.c=$(O)/%.o) $(src_ref:%.c=$(O)/%.f32.o) $(src_ref:%.c=$(O)/%.f64.o) \
       $(if $(X86),$(src_cpu:%.c=$(O)/%.o)) $(gen:$(GEN)/%.c=$(O)/gen/%.o)
src_cu := $(if $(EMU)$(nvcc),$(foreach r,$(ROOMS),$(sort $(wildcard src/$(r)/*.cu))))
obj += $(if $(EMU),$(src_cu:%.cu=$(O)/%.cu.o) $(patsubst %.cpp,$(O)/%.o,$(wildcard test/emulator/*.cpp)),$(src_cu:%.cu=$(BUILD)/cuda/%.o))
main := $(if $(filter src/cli/main.c,$(src)),$(O)/src/cli/main.o)
TESTS ?= %
programs := $(basename $(notdir $(sort $(wildcard test/*.c))))
TARGET ?= arch
SECONDS ?= 60
fuzz_cc := $(if $(findstring clang,$(notdir $(CC))),$(CC),clang)
tests := $(addprefix $(O)/test/,$(filter $(TESTS),$(if $(EMU),$(filter cuda_%,$(programs)),$(filter-out cuda_%,$(programs)))))
emu_tests := $(if $(filter obj,$(variant)),$(addprefix $(BUILD)/emu/test/,$(filter $(TESTS),$(filter cuda_%,$(programs)))))
scripts := $(if $(main),$(addprefix test/,$(filter $(TESTS:%=%.sh),$(filter-out $(if $(emu_tests),,cuda_%.sh),$(notdir $(sort $(wildcard test/*.sh)))))))
fuzz := $(patsubst test/fuzz/%.c,$(O)/fuzz/%,$(sort $(wildcard test/fuzz/*.c)))
bench := $(patsubst bench/%.c,$(O)/bench/%,$(sort $(wildcard bench/*.c)))

# Objects follow the flags they were made with, the archive follows the list of its members.
flags := $(CC) $(BASE) $(OPT) $(CFLAGS) $(if $(EMU),$(CXX) $(EMU_FLAGS))
members := $(sort $(obj))
keep = $(shell mkdir -p "$(dir $(1))" && printf '%s\n' '$(subst ','\'',$(2))' > "$(1).new.$$$$" && \
         if cmp -s "$(1).new.$$$$" "$(1)"; then rm -f "$(1).new.$$$$"; else mv -f "$(1).new.$$$$" "$(1)"; fi)
ifneq ($(filter-out $(no_tables),$(or $(MAKECMDGOALS),all)),)
$(call keep,$(O)/flags,$(flags))
$(call keep,$(O)/members,$(members))
$(if $(nvcc),$(call keep,$(BUILD)/cuda/flags,$(nvcc) $(NVCC_FLAGS)))
endif

# `make test` alone builds on every CPU; where make was given -j, that counts. -O: a warning stays beside its file.
jobs = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(shell nproc 2>/dev/null || echo 2)) -O $(if $(V),,-s)

ifdef V
Q :=
say = @:
else
Q := @
say = @echo '  $(1)  $(2)'
endif

.PHONY: all help lib tests fuzz-programs bench-programs test run-tests race run-fuzz fuzz fuzz-target check lint rooms deps deps-all demo figures figures-gpu install clean
all: $(if $(main),$(BIN),$(LIB))
lib: $(LIB)
tests: $(tests)
fuzz-programs: $(fuzz)
bench-programs: $(bench)

help:
	@echo 'make            build $(BUILD)/madras'
	@echo 'make demo       build, then a first look at three architectures'
	@echo 'make test       build, then the tests (<= 5 min)'
	@echo 'make check      everything: both compilers, sanitizers, valgrind (<= 30 min)'
	@echo 'make fuzz       TARGET=$(TARGET) SECONDS=$(SECONDS): new inputs for test/fuzz/TARGET.c, by libFuzzer'
	@echo 'make race       races between threads of the GPU'"'"'s kernels, on the emulated one (5 min)'
	@echo 'make lint       rules of the house'
	@echo 'make rooms      each room linked against those above it'
	@echo 'make figures    run the programs of bench/'
	@echo 'make figures-gpu  milliseconds a step of populations on a GPU, kernel by kernel'
	@echo 'make deps       install what is missing; deps-all: also for check, fuzz and figures'
	@echo 'make install    PREFIX=$(PREFIX) DESTDIR='
	@echo 'make clean      remove $(BUILD)'
	@echo 'options         CC= SAN= BUILD= TESTS= ROOMS= WERROR=1 V=1 DEPS=no (the head of Makefile says more)'

# ---- compile; the first time what is missing is named, not installed
$(O)/deps:
	@mkdir -p $(@D)
	@CC='$(CC)' DEPS=no sh scripts/deps.sh build || { echo 'madras: `make deps` installs them' >&2; exit 1; }
	@touch $@
$(O)/%.f32.o: %.c $(O)/flags | $(O)/deps
	@mkdir -p $(@D)
	$(call say,CC,$< (float))
	$(Q)$(CC) $(BASE) $(OPT) $(F32) $(CFLAGS) -c -o $@ $<
$(O)/%.f64.o: %.c $(O)/flags | $(O)/deps
	@mkdir -p $(@D)
	$(call say,CC,$< (double))
	$(Q)$(CC) $(BASE) $(OPT) $(F64) $(CFLAGS) -c -o $@ $<
$(O)/%.cpu.o: %.cpu.c $(O)/flags | $(O)/deps
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(BASE) -O3 -mavx2 -mfma $(CFLAGS) $(cpu_san) -c -o $@ $<
$(O)/gen/%.o: $(GEN)/%.c $(O)/flags | $(O)/deps
	@mkdir -p $(@D)
	$(Q)$(CC) $(BASE) $(OPT) $(CFLAGS) -c -o $@ $<
$(O)/%.o: %.c $(O)/flags | $(O)/deps
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(BASE) $(OPT) $(CFLAGS) -c -o $@ $<
$(BUILD)/cuda/%.o: %.cu $(BUILD)/cuda/flags
	@mkdir -p $(@D)
	$(call say,NVCC,$<)
	$(Q)'$(nvcc)' $(NVCC_FLAGS) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
$(O)/%.cu.o: %.cu $(O)/flags
	@mkdir -p $(@D)
	$(call say,CXX,$<)
	$(Q)$(CXX) $(EMU_FLAGS) -c -o $@ $<
$(O)/test/emulator/%.o: test/emulator/%.cpp $(O)/flags
	@mkdir -p $(@D)
	$(call say,CXX,$<)
	$(Q)$(CXX) $(EMU_FLAGS) $(if $(filter-out selftest deaths race_tests,$*),$(if $(race_flags),-fno-sanitize=thread -O2)) -c -o $@ $<
$(LIB): $(obj) $(O)/members
	$(call say,AR,$@)
	@rm -f $@
	$(Q)ar qcs $@ $(obj)
$(BIN): $(main) $(LIB)
	$(call say,LD,$@)
	$(Q)$(CC) $(BASE) $(CFLAGS) $(LDFLAGS) -o $@ $(main) $(LIB) -Wl,--as-needed $(LIBS) $(CUDA_LIBS)

$(O)/test/%: test/%.c $(LIB) $(O)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(BASE) $(OPT) $(CFLAGS) $(LDFLAGS) -MF $@.d -MT $@ -o $@ $< $(LIB) -Wl,--as-needed -lcmocka $(LIBS) $(CUDA_LIBS)
# A fuzz target defines LLVMFuzzerTestOneInput; scripts/replay.c runs it over a folder of files, libFuzzer invents more.
fuzz_main := $(if $(filter fuzzer,$(SAN)),-fsanitize=fuzzer,scripts/replay.c)
$(O)/fuzz/%: test/fuzz/%.c scripts/replay.c $(LIB) $(O)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(BASE) $(OPT) $(CFLAGS) $(LDFLAGS) -MF $@.d -MT $@ -o $@ $< $(fuzz_main) $(LIB) -Wl,--as-needed $(LIBS) $(CUDA_LIBS)
# A line "link: openblas fftw3f" in a program of bench/ names the yardsticks it wants beside ours.
$(O)/bench/%: bench/%.c $(LIB) $(O)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(BASE) $(OPT) $(CFLAGS) $(LDFLAGS) -MF $@.d -MT $@ -o $@ $< $(LIB) -Wl,--as-needed \
	    $$(sed -n 's/.*link: *\([a-z0-9 ]*\).*/\1/p' $< | tr ' ' '\n' | sed -n 's/^\(..*\)/-l\1/p') $(LIBS) $(CUDA_LIBS)

# ---- run
deps:
	@CC='$(CC)' DEPS='$(DEPS)' sh scripts/deps.sh build
deps-all:
	@CC='$(CC)' DEPS='$(DEPS)' sh scripts/deps.sh all
test:
	@CC='$(CC)' DEPS='$(DEPS)' sh scripts/deps.sh build
	@$(MAKE) $(jobs) tests all
	@$(MAKE) run-tests
run-tests: $(tests) all
	@$(if $(emu_tests),$(MAKE) $(jobs) EMU=1 tests all)
	@MADRAS_EMU='$(if $(emu_tests),$(abspath $(BUILD))/emu/madras)' sh scripts/test.sh "$(O)" "$(if $(main),$(BIN))" $(tests) $(emu_tests) $(scripts)
# Every kernel's threads under the emulator's race detector, in both precisions (test/emulator/race.cpp); about 5 minutes on two cores.
race:
	@$(MAKE) $(jobs) EMU=1 SAN=race tests
	@MDR_TEST_TIMEOUT=1200 sh scripts/test.sh '$(BUILD)/emu-race' '' $(patsubst %,'$(BUILD)/emu-race/test/%',$(filter $(TESTS),$(filter cuda_%,$(programs))))
run-fuzz: $(fuzz)
	@sh scripts/fuzz.sh $(fuzz)
# What it finds is left beside the target's corpus, where `make run-fuzz` and `make check` find it again; the inputs that only
# reach new code stay in $(BUILD).
fuzz:
	@test -f 'test/fuzz/$(TARGET).c' || { echo 'madras: TARGET is one of: $(notdir $(fuzz))' >&2; exit 2; }
	@command -v '$(firstword $(fuzz_cc))' > /dev/null || { echo 'madras: $(fuzz_cc) is missing (make deps-all)' >&2; exit 1; }
	@$(MAKE) $(jobs) CC='$(fuzz_cc)' SAN=fuzzer CFLAGS='$(CFLAGS) -O1' TESTS= fuzz-target
	@sh scripts/fuzz.sh --find '$(BUILD)/$(notdir $(firstword $(fuzz_cc)))-fuzzer/fuzz/$(TARGET)' '$(SECONDS)'
fuzz-target: $(O)/fuzz/$(TARGET)
lint: all
	@sh scripts/lint.sh "$(O)"
rooms:
	@$(MAKE) $(jobs) BUILD=$(BUILD)/rooms SAN= CUDA=no OPT=-O0 CFLAGS=-fPIC lib
	@CC='$(CC)' sh scripts/rooms.sh "$(BUILD)/rooms" "$(BUILD)/rooms/$(plain)" $(ROOMS)
check:
	@MAKE='$(MAKE)' sh scripts/check.sh "$(BUILD)"
demo:
	@CC='$(CC)' DEPS='$(DEPS)' sh scripts/deps.sh build
	@$(MAKE) $(jobs) all
	$(BIN) bench --store $(BUILD)/demo.db '(mh-attention swiglu)*2' '(hyena swiglu)*2' 'mamba*4'
figures:
	@CC='$(CC)' DEPS='$(DEPS)' sh scripts/deps.sh all
	@$(MAKE) $(jobs) bench-programs all
	@CC='$(CC)' sh scripts/figures.sh "$(O)" "$(BUILD)/figures"
# On a machine with a GPU; its last output is kept in docs/gpu-figures.txt.
figures-gpu:
	@$(MAKE) $(jobs) $(O)/bench/gpu all
	$(O)/bench/gpu bf16
install: all
	@test -n '$(main)' || { echo 'nothing to install: src/cli/main.c is missing' >&2; exit 1; }
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/share/doc/madras'
	install -m 755 $(BIN) '$(DESTDIR)$(PREFIX)/bin/madras'
	install -m 644 LICENSE $(wildcard README.md) '$(DESTDIR)$(PREFIX)/share/doc/madras'
	install -d '$(DESTDIR)$(PREFIX)/share/man/man1'
	$(BIN) --man > $(BUILD)/madras.1
	install -m 644 $(BUILD)/madras.1 '$(DESTDIR)$(PREFIX)/share/man/man1'
clean:
	rm -rf $(BUILD)

-include $(wildcard $(addsuffix /*.d,$(addprefix $(O)/src/,$(ALL_ROOMS)) $(O)/gen $(O)/test $(O)/test/emulator $(O)/fuzz $(O)/bench $(addprefix $(BUILD)/cuda/src/,$(ALL_ROOMS))))
