/* cli's own business. */
#ifndef MDR_CLI_INTERNAL_H
#define MDR_CLI_INTERNAL_H
#include "cli/cli.h"

extern const OptionDef mdr_cli_common[];
Err *mdr_cli_parse(const CommandDef *c, int argc, char **argv, Args *a);
void mdr_cli_args_free(Args *a);
void mdr_cli_help(const CommandDef *c, Text *t);          /* --help of a command                                          */
void mdr_cli_overview(Text *t);                           /* madras --help                                                */
void mdr_cli_man(Text *t);                                /* the man page, from the same descriptions                     */
void mdr_cli_catch_stop(void);                            /* installs the Ctrl-C handler                                  */
Err *mdr_cli_print(const char *text);                     /* standard output; a closed or full one is an error             */
/* settle.c: the options that say what is run, the same for bench and train. */
Err *mdr_cli_settle(const Args *a, bool single, const char *tasks, const char *default_protocol, Protocol **p);
Err *mdr_cli_archs(const Protocol *p, const char *const *word, int32_t n_word, const OptionValue *layers, ArchList *out);
#endif
