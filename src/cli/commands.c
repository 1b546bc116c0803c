/* The commands in the order of the overview; the table is generated from the files that define mdr_commands_NAME. */
#include "cli/internal.h"

extern const CommandDef *const mdr_command_files[];

const CommandDef *mdr_cli_command_at(int i)
{
    for (int f = 0; mdr_command_files[f]; f++)
        for (const CommandDef *c = mdr_command_files[f]; c->name; c++)
            if (i-- == 0) return c;
    return NULL;
}
