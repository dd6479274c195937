/* A PAM application that prints the number each call answers.
 *
 * client CONFDIR SERVICE USER OPERATION...
 *   password=TEXT  the next password the conversation gives; without one it answers PAM_CONV_ERR
 *   rhost=TEXT     sets PAM_RHOST
 *   auth nonull acct cred open close passwd   the calls; prints "NAME NUMBER"
 *   user           prints PAM_USER: "user TEXT" ("-" when it is not set)
 *   close0 close1 close2   closes that descriptor
 *   descriptors    prints how many descriptors are open: "descriptors NUMBER"
 *   again=N        N times pam_start, pam_authenticate with the next password, pam_end
 * Output goes to descriptor 9, so that the standard ones may be closed.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <security/pam_appl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *passwords[16];
static int given, used;

static void say(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    vdprintf(9, format, list);
    va_end(list);
}

static int converse(int count, const struct pam_message **messages, struct pam_response **replies, void *data)
{
    (void)data;
    struct pam_response *all = calloc((size_t)count, sizeof *all);
    for (int i = 0; i < count; i++) {
        if (messages[i]->msg_style != PAM_PROMPT_ECHO_OFF)
            continue;
        if (used == given) {
            free(all);
            return PAM_CONV_ERR;
        }
        all[i].resp = strdup(passwords[used++]);
    }
    *replies = all;
    return PAM_SUCCESS;
}

static void item(pam_handle_t *handle, const char *name, int type)
{
    const void *value = NULL;
    int code = pam_get_item(handle, type, &value);
    say("%s %s\n", name, code == PAM_SUCCESS && value ? (const char *)value : "-");
}

static int descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = -3; /* ".", ".." and the directory itself */
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    struct pam_conv conversation = { converse, NULL };
    pam_handle_t *handle = NULL;
    int code = pam_start_confdir(argv[2], argv[3], &conversation, argv[1], &handle);
    if (code != PAM_SUCCESS) {
        say("start %d\n", code);
        return 1;
    }
    for (int i = 4; i < argc; i++) {
        const char *op = argv[i];
        if (!strncmp(op, "password=", 9)) {
            passwords[given++] = op + 9;
        } else if (!strncmp(op, "rhost=", 6)) {
            pam_set_item(handle, PAM_RHOST, op + 6);
        } else if (!strcmp(op, "auth")) {
            say("auth %d\n", code = pam_authenticate(handle, 0));
        } else if (!strcmp(op, "nonull")) {
            say("nonull %d\n", code = pam_authenticate(handle, PAM_DISALLOW_NULL_AUTHTOK));
        } else if (!strcmp(op, "acct")) {
            say("acct %d\n", code = pam_acct_mgmt(handle, 0));
        } else if (!strcmp(op, "cred")) {
            say("cred %d\n", code = pam_setcred(handle, PAM_ESTABLISH_CRED));
        } else if (!strcmp(op, "open")) {
            say("open %d\n", code = pam_open_session(handle, 0));
        } else if (!strcmp(op, "close")) {
            say("close %d\n", code = pam_close_session(handle, 0));
        } else if (!strcmp(op, "passwd")) {
            say("passwd %d\n", code = pam_chauthtok(handle, 0));
        } else if (!strcmp(op, "user")) {
            item(handle, op, PAM_USER);
        } else if (!strncmp(op, "close", 5)) {
            close(op[5] - '0');
        } else if (!strcmp(op, "descriptors")) {
            say("descriptors %d\n", descriptors());
        } else if (!strncmp(op, "again=", 6)) {
            int first = used;
            for (int n = atoi(op + 6); n > 0; n--) {
                pam_handle_t *other = NULL;
                used = first;
                code = pam_start_confdir(argv[2], argv[3], &conversation, argv[1], &other);
                if (code == PAM_SUCCESS)
                    code = pam_authenticate(other, 0);
                pam_end(other, code);
                if (code != PAM_SUCCESS)
                    break;
            }
            say("again %d\n", code);
        } else {
            return 2;
        }
    }
    pam_end(handle, code);
    return 0;
}
