/* cli: main, one file a subcommand (src/cli/NAME.c defines `const CommandDef mdr_commands_NAME[]`, ended by name == NULL), the
 * parser of options, help and man page from one description of each option. Only this room prints and exits. */
#ifndef MDR_CLI_H
#define MDR_CLI_H
#include "report/report.h"

typedef enum OptionType { OPT_FLAG, OPT_TEXT, OPT_INT, OPT_LIST } OptionType;    /* LIST: may be repeated                 */
typedef struct OptionDef {
    const char *name;                     /* without the dashes                                                           */
    OptionType type;
    const char *value;                    /* "FILE", "N": shown in help                                                   */
    const char *help;                     /* one line; default included                                                   */
    double lo, hi;                        /* INT: bounds                                                                  */
    bool takes_rest;                      /* LIST: takes all following words up to the next option (mad-lab's --layers)    */
} OptionDef;                              /* a table ends with name == NULL; --help is added to every one                 */
/* Rows that several commands have, in the same words. */
#define MDR_CLI_STORE {"store", OPT_TEXT, "FILE", "trials (default: $MADRAS_STORE, else in ~/.local/state)", 0, 0, false}
#define MDR_CLI_THREADS {"threads", OPT_INT, "N", "worker threads (default: what this machine gives)", 1, 1024, false}
#define MDR_CLI_DEVICE                                                                                                 \
    {"device", OPT_TEXT, "DEVICE", "auto, cpu, cuda[:N] (default: protocol's or auto)", 0, 0, false},            \
    {"precision", OPT_TEXT, "P", "float32, or bf16 on a GPU; as --set precision=P", 0, 0, false}
#define MDR_CLI_JSON {"json", OPT_FLAG, NULL, "print JSON instead of text", 0, 0, false}
#define MDR_CLI_CONFIG {"config", OPT_TEXT, "FILE", "YAML read after the protocol", 0, 0, false}
#define MDR_CLI_SET {"set", OPT_LIST, "KEY=VALUE", "one value, over protocol and config", 0, 0, false}
#define MDR_CLI_LAYERS {"layers", OPT_LIST, "LAYER", "mad-lab's spelling: --layers a b c d", 0, 0, true}
typedef struct OptionValue { bool given; const char *text; int64_t number; const char **list; int32_t n; } OptionValue;
typedef struct Args {
    const OptionDef *option;
    OptionValue *value;                   /* one a row of the table                                                       */
    const char **word;                    /* operands                                                                     */
    int32_t n_word;
} Args;
typedef struct CommandDef {
    const char *name, *operands, *help;   /* "bench", "ARCH...", one line                                                 */
    const char *detail;                   /* paragraphs for --help and the man page                                       */
    const OptionDef *options;
    Err *(*run)(const Args *a);
} CommandDef;
const CommandDef *mdr_cli_command_at(int i);
const OptionValue *mdr_cli_option(const Args *a, const char *name);           /* never NULL; not given if the table lacks it */

/* Progress on standard error: silent when not a terminal; one line redrawn with time left; NO_COLOR and TERM=dumb obeyed. */
void mdr_cli_progress(double done, double total, double seconds, const char *fmt, ...) MDR_PRINTF(4, 5);
void mdr_cli_progress_end(void);
bool mdr_cli_stop_asked(void);            /* Ctrl-C was pressed, after mdr_cli_catch_stop: finish what is durable and stop */
void mdr_cli_note(const char *fmt, ...) MDR_PRINTF(1, 2);                     /* one line on standard error               */
ReportStyle mdr_cli_style(void);
Err *mdr_cli_pool(const Args *a, Pool **pool);                                /* --threads, else the machine's; says so where there is no AVX2 */
#endif
