/* --help, the overview and the man page: all read off the command and option tables. */
#include "cli/internal.h"
#include <string.h>

static const char *repeated(const OptionDef *o) { return o->type == OPT_LIST && !o->takes_rest ? " (may be repeated)" : ""; }

static void option_line(const OptionDef *o, Text *t)
{
    char left[64];
    snprintf(left, sizeof left, "--%s%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "", o->takes_rest ? "..." : "");
    mdr_text_printf(t, "  %-22s %s%s\n", left, o->help, repeated(o));
}

void mdr_cli_help(const CommandDef *c, Text *t)
{
    mdr_text_printf(t, "madras %s %s\n\n%s\n\n", c->name, c->operands, c->help);
    for (const OptionDef *o = c->options; o && o->name; o++) option_line(o, t);
    for (const OptionDef *o = mdr_cli_common; o->name; o++) option_line(o, t);
    if (c->detail) mdr_text_printf(t, "\n%s", c->detail);
}

void mdr_cli_overview(Text *t)
{
    mdr_text_printf(t, "madras " MDR_VERSION ": how good will a sequence-model architecture be?\n\nusage: madras COMMAND ...\n\n");
    for (int i = 0; mdr_cli_command_at(i); i++) mdr_text_printf(t, "  %-8s %s\n", mdr_cli_command_at(i)->name, mdr_cli_command_at(i)->help);
    mdr_text_printf(t, "\nmadras COMMAND --help says more; madras --man prints the manual page; madras\n"
                       "--version tells the version, the numerics version and the instruction class.\n\n"
                       "example: madras bench '(mh-attention swiglu)*2' 'mamba*4'\n");
}

static void man_text(const char *s, Text *t)
{
    for (bool start = true; *s; s++) {
        if (start && *s == '\n') { mdr_text_printf(t, ".PP\n"); continue; }
        if (start && (*s == '.' || *s == '\'')) mdr_text_printf(t, "\\&");
        if (*s == '-') mdr_text_printf(t, "\\-");
        else if (*s == '\\') mdr_text_printf(t, "\\e");
        else mdr_text_add(t, s, 1);
        start = *s == '\n';
    }
}

static void man_option(const OptionDef *o, Text *t)
{
    mdr_text_printf(t, ".TP\n\\fB\\-\\-");
    man_text(o->name, t);
    mdr_text_printf(t, o->value ? "\\fR \\fI" : "\\fR");
    if (o->value) { man_text(o->value, t); mdr_text_printf(t, "\\fR%s", o->takes_rest ? "..." : ""); }
    mdr_text_printf(t, "\n");
    man_text(o->help, t);
    man_text(repeated(o), t);
    mdr_text_printf(t, "\n");
}

void mdr_cli_man(Text *t)
{
    mdr_text_printf(t, ".TH MADRAS 1 2026-11-25 \"madras " MDR_VERSION "\" \"User Commands\"\n.SH NAME\nmadras \\- score sequence-model architectures on small "
                       "synthetic tasks\n.SH SYNOPSIS\n\\fBmadras\\fR \\fICOMMAND\\fR ...\n.SH COMMANDS\n");
    for (int i = 0; mdr_cli_command_at(i); i++) {
        const CommandDef *c = mdr_cli_command_at(i);
        mdr_text_printf(t, ".SS \\fBmadras %s\\fR ", c->name);
        man_text(c->operands, t);
        mdr_text_printf(t, "\n");
        man_text(c->help, t);
        mdr_text_printf(t, "\n");
        for (const OptionDef *o = c->options; o && o->name; o++) man_option(o, t);
        if (c->detail) {
            mdr_text_printf(t, ".PP\n.nf\n");
            man_text(c->detail, t);
            mdr_text_printf(t, ".fi\n");
        }
    }
    mdr_text_printf(t, ".SH COMMON OPTIONS\n");
    for (const OptionDef *o = mdr_cli_common; o->name; o++) man_option(o, t);
    mdr_text_printf(t, ".SH EXIT STATUS\n0 done; 1 our fault or the machine's; 2 the user's input; 130 stopped by Ctrl\\-C.\n"
                       ".SH ENVIRONMENT\n.TP\nMADRAS_STORE\nwhere trials are kept; else $XDG_STATE_HOME/madras/trials.db, else "
                       "~/.local/state/madras/trials.db\n.TP\nNO_COLOR, TERM=dumb\nno colour; TERM=dumb also no progress line\n.TP\n"
                       "MADRAS_CLASS=plain\nrun without AVX2 and FMA; such trials have keys of their own\n.TP\nMADRAS_DEBUG\n"
                       "an error also names the line of the source where it was born\n");
}
