/* The table of tasks, sorted by name, from the array that scripts/tables.sh makes of src/task's files. */
#include "task/task.h"
#include <string.h>

extern const TaskDef *const mdr_task_files[];        /* one array a file; ends with NULL                                   */

/* How many tasks come before one: its place. Of two with one name (a copied file) the one whose file comes first. */
static int place(const TaskDef *of) {
    int n = 0;
    bool behind = false;
    for (const TaskDef *const *f = mdr_task_files; *f; f++)
        for (const TaskDef *t = *f; t->name; t++) {
            int order = strcmp(t->name, of->name);
            behind = behind || t == of;
            if (order < 0 || (order == 0 && !behind)) n++;
        }
    return n;
}

const TaskDef *mdr_task_at(int i) {
    for (const TaskDef *const *f = mdr_task_files; *f; f++)
        for (const TaskDef *t = *f; t->name; t++)
            if (place(t) == i) return t;
    return NULL;
}

const TaskDef *mdr_task_find(const char *name) {
    for (const TaskDef *const *f = mdr_task_files; *f; f++)
        for (const TaskDef *t = *f; t->name; t++)
            if (strcmp(t->name, name) == 0) return t;
    return NULL;
}
