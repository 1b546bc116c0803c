/* madras data: a task's sequences, as numpy arrays or to read. */
#include "cli/internal.h"
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static const OptionDef options[] = {
    {"task", OPT_TEXT, "TASK", "task to draw from (madras list tasks)", 0, 0, false},
    {"out", OPT_TEXT, "DIR", "write train|valid|test/{inputs,targets}.npy there", 0, 0, false},
    {"show", OPT_INT, "N", "print the first N sequences of a split readably", 1, 1e6, false},
    {"split", OPT_TEXT, "SPLIT", "of --show: train, valid or test (default: test)", 0, 0, false},
    {"protocol", OPT_TEXT, "NAME|FILE", "where values start from (default: madras)", 0, 0, false},
    MDR_CLI_CONFIG,
    MDR_CLI_SET,
    {"seed", OPT_INT, "S", "seed of the data (default: the protocol's first)", 0, 9e15, false},
    {0}};
static const char *const split_name[SPLIT_COUNT] = {"train", "valid", "test"};

/* A place that cannot be is the user's, a disk that is full the machine's. */
static Err *refused(const char *what, const char *path, int code)
{
    static const int users[] = {ENOENT, EACCES, EPERM, ENOTDIR, EISDIR, EROFS, ENAMETOOLONG, ELOOP};
    ErrCode whose = MDR_MACHINE;
    for (int i = 0; i < MDR_COUNT(users); i++)
        if (users[i] == code) whose = MDR_USER;
    return mdr_err_new(whose, __FILE__, __LINE__, "%s %s: %s", what, path, strerror(code));
}

/* One .npy file, format 1.0: int64, C order, [n][rows]. Header padded so that data begins at a multiple of 64. */
static Err *write_npy(const char *path, const int32_t *x, int64_t n, int32_t rows)
{
    char head[128];
    int len = snprintf(head + 10, sizeof head - 10, "{'descr': '<i8', 'fortran_order': False, 'shape': (%lld, %d), }", (long long)n, rows);
    memset(head + 10 + len, ' ', sizeof head - 10 - (size_t)len);
    memcpy(head, "\x93NUMPY\x01\x00\x76\x00", 10);
    head[127] = '\n';
    errno = 0;
    FILE *f = fopen(path, "wb");
    if (!f) return refused("cannot write", path, errno);
    bool ok = fwrite(head, 1, sizeof head, f) == sizeof head;
    for (int64_t i = 0; ok && i < n * rows; i++) {
        unsigned char b[8];
        uint64_t v = (uint64_t)(int64_t)x[i];
        for (int k = 0; k < 8; k++) b[k] = (unsigned char)(v >> (8 * k));
        ok = fwrite(b, 1, 8, f) == 8;
    }
    int code = errno;
    if (fclose(f) == 0 && ok) return NULL;
    if (ok) code = errno;
    remove(path);                                 /* half an array is worse than none                                    */
    return MDR_ERR_MACHINE("cannot write %s: %s", path, strerror(code));
}

static Err *make_dir(const char *path)
{
    if (mkdir(path, 0777) == 0 || errno == EEXIST) return NULL;
    return refused("cannot make the folder", path, errno);
}

static Err *write_split(const Setting *s, Split split, uint64_t seed, const char *dir)
{
    Dataset *d = NULL;
    MDR_TRY(mdr_task_open(s->task, &s->params, split, seed, &d));
    int64_t n = mdr_task_size(d);
    int32_t rows = mdr_task_rows(d);
    void *big = NULL;
    Err *e = mdr_alloc_big((size_t)(n * rows) * 2 * sizeof(int32_t), &big);
    int32_t *tokens = big, *targets = tokens ? tokens + n * rows : NULL;
    for (int64_t i = 0; !e && i < n; i++) mdr_task_example(d, i, tokens + i * rows, targets + i * rows);
    Text path = {0};
    mdr_text_printf(&path, "%s/%s", dir, split_name[split]);
    if (!e) e = make_dir(path.s);
    size_t base = path.n;
    mdr_text_printf(&path, "/inputs.npy");
    if (!e) e = write_npy(path.s, tokens, n, rows);
    path.n = base;
    mdr_text_printf(&path, "/targets.npy");
    if (!e) e = write_npy(path.s, targets, n, rows);
    mdr_text_free(&path);
    mdr_free_big(big);
    mdr_task_close(d);
    return e;
}

static Err *show(const Setting *s, Split split, uint64_t seed, int64_t count)
{
    Dataset *d = NULL;
    MDR_TRY(mdr_task_open(s->task, &s->params, split, seed, &d));
    int32_t rows = mdr_task_rows(d);
    int32_t *tokens = mdr_alloc((size_t)rows * 2 * sizeof *tokens), *targets = tokens + rows;
    Text t = {0};
    for (int64_t i = 0; i < count && i < mdr_task_size(d); i++) {
        mdr_task_example(d, i, tokens, targets);
        mdr_text_printf(&t, "%s %lld\n", split_name[split], (long long)i);
        for (int32_t from = 0; from < rows; from += 12) {
            int32_t to = from + 12 < rows ? from + 12 : rows;
            char word[16];
            mdr_text_printf(&t, "%4d in ", from);
            for (int32_t k = from; k < to; k++) { s->task->token_text(&s->params, tokens[k], word); mdr_text_printf(&t, " %5s", word); }
            mdr_text_printf(&t, "\n     out");
            for (int32_t k = from; k < to; k++) {
                if (targets[k] < 0) { mdr_text_printf(&t, " %5s", "-"); continue; }
                s->task->token_text(&s->params, targets[k], word);
                mdr_text_printf(&t, " %5s", word);
            }
            mdr_text_printf(&t, "\n");
        }
    }
    Err *e = mdr_cli_print(mdr_text_str(&t));
    mdr_text_free(&t);
    mdr_free(tokens);
    mdr_task_close(d);
    return e;
}

static Err *run(const Args *a)
{
    const OptionValue *task = mdr_cli_option(a, "task"), *out = mdr_cli_option(a, "out"), *n = mdr_cli_option(a, "show");
    const OptionValue *split = mdr_cli_option(a, "split"), *seed = mdr_cli_option(a, "seed");
    if (a->n_word) return MDR_ERR_USER("data takes no operand, got \"%s\"", a->word[0]);
    if (!task->given) return MDR_ERR_USER("data wants --task TASK; see madras list tasks");
    if (!out->given && !n->given) return MDR_ERR_USER("data wants --out DIR or --show N");
    if (split->given && !n->given) return MDR_ERR_USER("--split goes with --show; --out writes all three");
    int which = SPLIT_TEST;
    if (split->given)
        for (which = 0; which < SPLIT_COUNT && strcmp(split_name[which], split->text) != 0;) which++;
    if (which == SPLIT_COUNT) return MDR_ERR_USER("--split must be train, valid or test, got \"%s\"", split->text);
    Protocol *p = NULL;
    Err *e = mdr_cli_settle(a, true, task->text, "madras", &p);
    uint64_t s = seed->given ? (uint64_t)seed->number : e ? 0 : p->seed[0];
    if (!e && n->given) e = show(&p->setting[0], (Split)which, s, n->number);
    if (!e && out->given) e = make_dir(out->text);
    for (int k = 0; !e && out->given && k < SPLIT_COUNT; k++) {
        mdr_cli_progress(k, SPLIT_COUNT, 0, "%s", split_name[k]);
        e = write_split(&p->setting[0], (Split)k, s, out->text);
    }
    mdr_cli_progress_end();
    mdr_study_protocol_free(p);
    return e;
}

const CommandDef mdr_commands_data[] = {
    {"data", "--task TASK (--out DIR | --show N)", "a task's sequences: numpy arrays, or readable",
     "Files: DIR/{train,valid,test}/{inputs,targets}.npy, int64; -100: ignored target.\n"
     "Splits draw from streams of their own; a seed gives the same bytes everywhere.\n"
     "Example: madras data --task selective-copying --set seq_len=32 --show 2\n", options, run},
    {0}};
