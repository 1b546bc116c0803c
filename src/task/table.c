/* The table of tasks, sorted by name, from the array that scripts/tables.sh makes of src/task's files. */
#include "task/task.h"
#include <string.h>

extern const TaskDef *const mdr_task_files[];        /* one array a file; ends with NULL                                   */

/* How many tasks come before name: its place. */
static int place(const char *name) {
    int n = 0;
    for (const TaskDef *const *f = mdr_task_files; *f; f++)
        for (const TaskDef *t = *f; t->name; t++)
            if (strcmp(t->name, name) < 0) n++;
    return n;
}

const TaskDef *mdr_task_at(int i) {
    for (const TaskDef *const *f = mdr_task_files; *f; f++)
        for (const TaskDef *t = *f; t->name; t++)
            if (place(t->name) == i) return t;
    return NULL;
}

const TaskDef *mdr_task_find(const char *name) {
    for (const TaskDef *const *f = mdr_task_files; *f; f++)
        for (const TaskDef *t = *f; t->name; t++)
            if (strcmp(t->name, name) == 0) return t;
    return NULL;
}
