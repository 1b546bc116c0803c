/* cli's own business. */
#ifndef MDR_CLI_INTERNAL_H
#define MDR_CLI_INTERNAL_H
#include "cli/cli.h"
#include <jansson.h>

extern const OptionDef mdr_cli_common[];
Err *mdr_cli_parse(const CommandDef *c, int argc, char **argv, Args *a);
void mdr_cli_args_free(Args *a);
void mdr_cli_help(const CommandDef *c, Text *t);          /* --help of a command                                          */
void mdr_cli_overview(Text *t);                           /* madras --help                                                */
void mdr_cli_man(Text *t);                                /* the man page, from the same descriptions                     */
void mdr_cli_catch_stop(void);                            /* for commands that keep something: Ctrl-C only asks to stop   */
/* To standard output. A closed or full one is an error; a reader that has gone (| head) only after mdr_cli_catch_stop. */
Err *mdr_cli_print(const char *text);
Err *mdr_cli_print_json(json_t *o, size_t flags);         /* one object and a newline; takes o over. 17 digits: exact      */
void mdr_cli_time_text(double seconds, char buf[32]);      /* "40 s", "12 min", "3.5 h", "9 days"                       */
Err *mdr_cli_measure(const Args *a, bool json, Text *out);   /* measure.c: list ops --measure                              */
Err *mdr_cli_print_plan(const Args *a, const TrialSpec *spec);   /* train_plan.c: train --plan                           */
/* devices.c: the device that --device, protocol and precision ask for; NULL: the CPU. Sets p->device_class. */
Err *mdr_cli_device(const Args *a, Protocol *p, Accel **accel);
/* The same for trials that are only read: a GPU's class is the one that the store has. */
Err *mdr_cli_stored_device(const Args *a, Protocol *p, Store *s, Arena *arena);
void mdr_cli_list_devices(Text *t, json_t *rows);
/* settle.c: the options that say what is run, the same for bench and train. */
Err *mdr_cli_settle(const Args *a, bool single, const char *tasks, const char *default_protocol, Protocol **p);
Err *mdr_cli_archs(const Protocol *p, const char *const *word, int32_t n_word, const OptionValue *layers, ArchList *out);
#endif
