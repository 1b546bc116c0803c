/* madras: finds the command, parses its options, runs it, and turns an error into one sentence and an exit code. */
#include "cli/internal.h"
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void out_of_memory(size_t bytes)
{
    fprintf(stderr, "madras: out of memory (asked for %zu bytes)\n", bytes);
    exit(MDR_MACHINE);
}

static int report(Err *e)
{
    if (!e) return 0;
    mdr_cli_progress_end();
    int code = (int)mdr_err_code(e);
    fprintf(stderr, "madras: %s\n", mdr_err_text(e));
    if (getenv("MADRAS_DEBUG")) fprintf(stderr, "madras: (%s)\n", mdr_err_born(e));
    mdr_err_free(e);
    return code;
}

static int print(void (*make)(Text *))
{
    Text t = {0};
    make(&t);
    int code = report(mdr_cli_print(mdr_text_str(&t)));
    mdr_text_free(&t);
    return code;
}

static void version(Text *t)
{
    mdr_text_printf(t, "madras " MDR_VERSION "\nnumerics version %d\ninstruction class %s\n", MDR_NUMERICS, mdr_cpu_class());
}

static const CommandDef *find(const char *name)
{
    for (int i = 0; mdr_cli_command_at(i); i++)
        if (strcmp(mdr_cli_command_at(i)->name, name) == 0) return mdr_cli_command_at(i);
    return NULL;
}

static Err *unknown(const char *name)
{
    const char *names[64];
    int n = 0;
    for (; mdr_cli_command_at(n) && n < 63; n++) names[n] = mdr_cli_command_at(n)->name;
    names[n] = NULL;
    return MDR_ERR_UNKNOWN("there is no command", name, names, "see madras --help");
}

/* A wish that nobody understands would run with AVX2 and keep its trials under avx2-fma. */
static Err *check_class(void)
{
    const char *wish = getenv("MADRAS_CLASS");
    if (!wish || !wish[0] || !strcmp(wish, "plain")) return NULL;
    return MDR_ERR_USER("MADRAS_CLASS must be plain or nothing, got \"%s\"", wish);
}

static int run(const CommandDef *c, int argc, char **argv)
{
    Args a = {0};
    Err *e = check_class();
    if (e) return report(e);
    e = mdr_cli_parse(c, argc, argv, &a);
    if (!e && mdr_cli_option(&a, "help")->given) {
        Text t = {0};
        mdr_cli_help(c, &t);
        e = mdr_cli_print(mdr_text_str(&t));
        mdr_text_free(&t);
    } else if (!e) e = c->run(&a);
    mdr_cli_args_free(&a);
    return report(e);
}

/* A closed standard stream must not lend its number to a file of ours: it becomes one that can only be read, so that writing to it
 * fails as it should. */
static void fill_streams(void)
{
    int fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd < 3) fd = open("/dev/null", O_RDONLY);
    if (fd >= 3) close(fd);
}

int main(int argc, char **argv)
{
    fill_streams();
    signal(SIGPIPE, SIG_IGN);
    mdr_set_oom_handler(out_of_memory);
    const char *word = argc > 1 ? argv[1] : "--help";
    bool help = !strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help");
    if (help && argc < 3) return print(mdr_cli_overview);
    if (!strcmp(word, "--version")) return print(version);
    if (!strcmp(word, "--man")) return print(mdr_cli_man);
    static char asked[] = "--help";
    char *for_help[] = {asked};
    if (help) word = argv[2];                         /* madras help train                                                  */
    const CommandDef *c = find(word);
    if (!c) return report(unknown(word));
    if (help) return run(c, 1, for_help);
    return run(c, argc - 2, argv + 2);
}
