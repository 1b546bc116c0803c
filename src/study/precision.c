/* Where a protocol's trials run, and in which arithmetic: what enters keys and captions. */
#include "study/internal.h"
#include <string.h>

Err *mdr_study_device(const char *text, StudyDevice *device, int32_t *gpu) {
    int64_t n = 0;
    *gpu = 0;
    if (strcmp(text, "auto") == 0) *device = DEVICE_AUTO;
    else if (strcmp(text, "cpu") == 0) *device = DEVICE_CPU;
    else if (strcmp(text, "cuda") == 0) *device = DEVICE_CUDA;
    else if (strncmp(text, "cuda:", 5) == 0 && mdr_text_to_int(text + 5, &n) && n >= 0 && n < 1024) {
        *device = DEVICE_CUDA;
        *gpu = (int32_t)n;
    } else return MDR_ERR_USER("device must be auto, cpu, cuda or cuda:N, got `%s`", text);
    return NULL;
}

Err *mdr_study_precision(const Protocol *p, int32_t *precision) {
    *precision = p->n_setting ? p->setting[0].train.precision : 0;
    for (int32_t i = 1; i < p->n_setting; i++)
        if (p->setting[i].train.precision != *precision)
            return MDR_ERR_USER("the settings differ in precision (%s and %s): one table never mixes them", p->setting[0].task->name,
                                p->setting[i].task->name);
    return NULL;
}

const char *mdr_study_class(const Protocol *p) { return p->device_class ? p->device_class : mdr_cpu_class(); }

const char *mdr_study_precision_name(const Protocol *p) {
    TrialSpec s = {.train = {.precision = p->n_setting ? p->setting[0].train.precision : PRECISION_FLOAT32}};
    return mdr_train_precision_name(&s);
}
