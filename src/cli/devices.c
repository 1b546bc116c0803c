/* --device and --precision: which device trials run on; list devices. */
#include "cli/internal.h"
#include <string.h>

static Err *open_gpu(int32_t gpu, Protocol *p, Accel **accel)
{
    MDR_TRY(mdr_accel_open(gpu, accel));
    p->device_class = mdr_arena_strdup(p->arena, mdr_accel_about(*accel)->class_name);
    return NULL;
}

/* auto in float32 is the CPU, whose bits everybody has; it says what a GPU would do. */
static void say_gpu(void)
{
    char why[256];
    AccelInfo info;
    if (mdr_accel_count(why) == 0) return;
    Err *e = mdr_accel_info(0, &info);
    if (!e && !info.why_not[0])
        mdr_cli_note("madras: running on the CPU; --device cuda would train on the %s, and --precision bf16 faster still (trials of their own)", info.name);
    mdr_err_free(e);
}

/* What is asked for, before anything is opened. auto: still to be settled by precision. */
typedef struct Wish { StudyDevice device; int32_t gpu, precision; const OptionValue *option; } Wish;
static Err *wish(const Args *a, const Protocol *p, Wish *w)
{
    *w = (Wish){p->device, p->gpu, PRECISION_FLOAT32, mdr_cli_option(a, "device")};
    if (w->option->given) MDR_TRY(mdr_err_wrap(mdr_study_device(w->option->text, &w->device, &w->gpu), "--device"));
    MDR_TRY(mdr_study_precision(p, &w->precision));
    if (w->device != DEVICE_CPU || w->precision == PRECISION_FLOAT32) return NULL;
    return MDR_ERR_USER("precision bf16 needs a GPU: --device cuda, or --precision float32");
}

Err *mdr_cli_device(const Args *a, Protocol *p, Accel **accel)
{
    Wish w;
    *accel = NULL;
    MDR_TRY(wish(a, p, &w));
    if (w.device == DEVICE_CUDA)
        return mdr_err_wrap(open_gpu(w.gpu, p, accel), w.option->given ? "--device %s" : "device %s", w.option->given ? w.option->text : "cuda");
    if (w.precision == PRECISION_BF16) return mdr_err_wrap(open_gpu(0, p, accel), "precision bf16 needs a GPU");
    if (w.device == DEVICE_AUTO) say_gpu();
    return NULL;
}

/* The trials of a GPU say which; no GPU is wanted to read them. */
Err *mdr_cli_stored_device(const Args *a, Protocol *p, Store *s, Arena *arena)
{
    Wish w;
    int32_t n;
    const char **class_name;
    MDR_TRY(wish(a, p, &w));
    if (w.device != DEVICE_CUDA && w.precision == PRECISION_FLOAT32) return NULL;
    MDR_TRY(mdr_store_classes(s, arena, "cuda-", &n, &class_name));
    if (n == 0) return MDR_ERR_USER("--stored: %s has no trials of a GPU", mdr_store_path(s));
    if (n > 1)
        return MDR_ERR_USER("--stored: %s has trials of %s and of %s, and one table never mixes them: use a store for each", mdr_store_path(s),
                            class_name[0], class_name[1]);
    p->device_class = mdr_arena_strdup(p->arena, class_name[0]);
    return NULL;
}

static const char *memory_text(int64_t bytes, char buf[32])
{
    snprintf(buf, 32, "%.1f GiB", (double)bytes / (1 << 30));
    return buf;
}

static json_t *gpu_json(int32_t i, const AccelInfo *g)
{
    json_t *o = json_object();
    char name[16];
    snprintf(name, sizeof name, "cuda:%d", i);
    json_object_set_new(o, "name", json_string(name));
    json_object_set_new(o, "model", json_string(g->name));
    json_object_set_new(o, "class", json_string(g->class_name));
    json_object_set_new(o, "memory", json_integer(g->memory));
    json_object_set_new(o, "free", json_integer(g->free));
    json_object_set_new(o, "processors", json_integer(g->processors));
    json_object_set_new(o, "driver", json_integer(g->driver));
    json_object_set_new(o, "runtime", json_integer(g->runtime));
    json_object_set_new(o, "usable", json_boolean(!g->why_not[0]));
    json_object_set_new(o, "why_not", g->why_not[0] ? json_string(g->why_not) : json_null());
    return o;
}

static void no_gpu_row(const char *why, Text *t, json_t *rows)
{
    if (!rows) {
        mdr_text_printf(t, "cuda    none: %s\n", why);
        return;
    }
    json_t *o = json_object();
    json_object_set_new(o, "name", json_string("cuda"));
    json_object_set_new(o, "usable", json_false());
    json_object_set_new(o, "why_not", json_string(why));
    json_array_append_new(rows, o);
}

static void cpu_row(Text *t, json_t *rows)
{
    if (!rows) {
        mdr_text_printf(t, "cpu     %d workers, class %s; float32\n", mdr_cpu_count(), mdr_cpu_class());
        return;
    }
    json_t *o = json_object();
    json_object_set_new(o, "name", json_string("cpu"));
    json_object_set_new(o, "class", json_string(mdr_cpu_class()));
    json_object_set_new(o, "workers", json_integer(mdr_cpu_count()));
    json_object_set_new(o, "usable", json_true());
    json_array_append_new(rows, o);
}

void mdr_cli_list_devices(Text *t, json_t *rows)
{
    char why[256], all[32], left[32];
    int32_t n = mdr_accel_count(why);
    cpu_row(t, rows);
    if (n == 0) no_gpu_row(why, t, rows);
    for (int32_t i = 0; i < n; i++) {
        AccelInfo g;
        Err *e = mdr_accel_info(i, &g);
        if (e) {
            snprintf(g.why_not, sizeof g.why_not, "%s", mdr_err_text(e));
            mdr_err_free(e);
        }
        if (rows) { json_array_append_new(rows, gpu_json(i, &g)); continue; }
        mdr_text_printf(t, "cuda:%-3d%s, %d processors, %s (%s free)\n        class %s; float32, bf16\n", i, g.name, g.processors,
                        memory_text(g.memory, all), memory_text(g.free, left), g.class_name);
        if (g.why_not[0]) mdr_text_printf(t, "        not usable: %s\n", g.why_not);
    }
    if (!rows && mdr_accel_built()) mdr_text_printf(t, "Built with CUDA.\n");
}
