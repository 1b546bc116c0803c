/* What a person sees while waiting: one line on standard error, redrawn at most ten times a second, silent when that is not a
 * terminal. And how a person stops: Ctrl-C once finishes what is durable, twice ends at once (the default action). */
#include "cli/internal.h"
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static volatile sig_atomic_t stop_asked;
static bool keeps;                                 /* this command keeps something: it ends in order, not by a signal         */
static double last_drawn;
static bool line_open;

static void on_stop(int signal_number)
{
    static const char text[] = "\nmadras: stopping after this step; Ctrl-C again ends at once\n";
    int keep = errno;
    stop_asked = 1;
    if (signal_number == SIGINT && isatty(2) && write(2, text, sizeof text - 1) < 0) stop_asked = 1;
    errno = keep;
}
void mdr_cli_catch_stop(void)
{
    struct sigaction a;
    keeps = true;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_stop;
    a.sa_flags = (int)SA_RESETHAND;
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}
bool mdr_cli_stop_asked(void) { return stop_asked != 0; }

static bool dumb(void)
{
    const char *term = getenv("TERM");
    return !term || strcmp(term, "dumb") == 0;
}
static int columns(int fd)
{
    struct winsize w;
    return ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col : 80;
}

ReportStyle mdr_cli_style(void)
{
    const char *none = getenv("NO_COLOR");
    bool tty = isatty(1);
    return (ReportStyle){tty ? columns(1) : 80, tty && !dumb() && !(none && none[0])};
}

void mdr_cli_time_text(double s, char buf[32])
{
    if (s < 100) snprintf(buf, 32, "%.0f s", s);
    else if (s < 6000) snprintf(buf, 32, "%.0f min", s / 60);
    else if (s < 48 * 3600.) snprintf(buf, 32, "%.1f h", s / 3600);
    else snprintf(buf, 32, "%.0f days", s / 86400);
}

void mdr_cli_progress(double done, double total, double seconds, const char *fmt, ...)
{
    double now = mdr_clock();
    if (!isatty(2) || dumb() || (line_open && now - last_drawn < 0.1)) return;
    char text[256], left[32], line[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    double share = total > 0 ? done / total : 0;
    char bar[21];
    for (int i = 0; i < 20; i++) bar[i] = share * 20 > i + 0.5 ? '#' : '.';
    bar[20] = 0;
    mdr_cli_time_text(share > 0.01 ? seconds * (1 - share) / share : 0, left);
    snprintf(line, sizeof line, "[%s] %3.0f%% %s%s  %s", bar, 100 * share, share > 0.01 ? left : "", share > 0.01 ? " left" : "", text);
    int width = columns(2) - 1;
    fprintf(stderr, "\r%-*.*s", width, width, line);
    fflush(stderr);
    last_drawn = now;
    line_open = true;
}

void mdr_cli_progress_end(void)
{
    if (!line_open) return;
    fprintf(stderr, "\r%*s\r", columns(2) - 1, "");
    fflush(stderr);
    line_open = false;
}

void mdr_cli_note(const char *fmt, ...)
{
    mdr_cli_progress_end();
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

Err *mdr_cli_print(const char *text)
{
    mdr_cli_progress_end();
    if (fputs(text, stdout) >= 0 && fflush(stdout) == 0) return NULL;
    if (errno == EPIPE && !keeps) return NULL;    /* head and less have seen enough                                        */
    return MDR_ERR_MACHINE("cannot write to standard output: %s", strerror(errno));
}

Err *mdr_cli_print_json(json_t *o, size_t flags)
{
    Text t = {0};
    Err *e = mdr_report_json(o, flags, &t);
    if (!e) e = mdr_cli_print(mdr_text_str(&t));
    mdr_text_free(&t);
    return e;
}

Err *mdr_cli_pool(const Args *a, Pool **pool)
{
    const OptionValue *v = mdr_cli_option(a, "threads");
    if (!mdr_cpu_avx2()) mdr_cli_note("madras: running without AVX2 and FMA (class plain): many times slower, and trials of their own");
    return mdr_pool_open(v->given ? (int)v->number : mdr_cpu_count(), pool);
}
