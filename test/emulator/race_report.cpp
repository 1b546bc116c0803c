/* Tells of races (race_report.h): what, where in the source, by addr2line, and in the end how many: the program fails then. */
#include "race_report.h"
#include <link.h>
#include <set>
#include <stdio.h>
#include <unistd.h>

static int races;
static std::string *instead;
int emu_races(void) { return races; }
void emu_races_to(std::string *text) { instead = text; }

#ifdef EMU_RACE
static int find_base(struct dl_phdr_info *info, size_t, void *base)
{
    *(uintptr_t *)base = info->dlpi_addr;
    return 1;                                             /* the program itself comes first */
}
static uintptr_t base(void)
{
    uintptr_t b = 0;
    dl_iterate_phdr(find_base, &b);
    return b;
}
uintptr_t race_base = base();
static EmuLaunch now;                                     /* a copy: it is of interest after its end */
void race_report_launch(const EmuLaunch *launch) { now = *launch; }

/* "f at file:line, inlined in g at file:line" */
static std::string name(uint32_t pc)
{
    if (!pc) return "somewhere";
    char exe[512], command[700], line[512];
    const ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = 0;
    snprintf(command, sizeof command, "addr2line -piCsf -e '%s' %#x 2>/dev/null", exe, pc - 1);
    FILE *f = popen(command, "r");
    std::string all;
    while (f && fgets(line, sizeof line, f)) {
        std::string s = line;
        s.resize(s.find_last_not_of("\n") + 1);
        all += "\n        " + s;
    }
    if (f) pclose(f);
    return all;
}
void race_report(const RaceReport &r)
{
    static std::set<std::pair<uint32_t, uint32_t>> told;
    if (!instead && !told.emplace(race_pc(r.pc), r.other_pc).second) return;
    const bool writes = r.what == EMU_WRITE || r.what == EMU_ATOMIC_WRITE;
    char text[700];
    std::string who = "thread " + std::to_string(r.other_thread);
    if (r.other_piece) who = "an earlier launch or copy that nothing orders before";
    else if (r.other_block >= 0) who = "another block, number " + std::to_string(r.other_block) + " to run,";
    snprintf(text, sizeof text, "emulator: race in kernel %s launched at %s:%d, block (%u, %u, %u) of (%u, %u, %u)\n    thread %d %s %zu bytes, %s:", now.name,
             now.file, now.line, blockIdx.x, blockIdx.y, blockIdx.z, gridDim.x, gridDim.y, gridDim.z, r.thread, writes ? "writes" : "reads", r.bytes, r.place);
    const std::string all = text + name(race_pc(r.pc)) + "\n    " + who + (r.wrote ? " wrote:" : " read:") + name(r.other_pc) + "\n";
    if (instead) {
        *instead += all;
        return;
    }
    races++;
    fflush(stdout);
    fputs(all.c_str(), stderr);
}
__attribute__((destructor)) static void end(void)
{
    if (!races) return;
    fflush(stdout);
    fprintf(stderr, "emulator: %d races\n", races);
    _exit(66);
}
#endif
