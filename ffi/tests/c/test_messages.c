/* The message of a failed call: where it is, how long it stays, and what becomes of long ones. */
#include "check.h"
#include <pthread.h>

/* The call and its message as arguments of one printf, evaluated in either order. */
static void in_one_expression(void) {
    char text[6000];
    for (int i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "%s: %s", bolmo_status_name(bolmo_session_append_bos(NULL)),
                 bolmo_last_error_message());
        CHECK(strcmp(text, "invalid argument: bolmo_session: the handle must not be NULL") == 0);
        snprintf(text, sizeof text, "%s; %s", bolmo_last_error_message(),
                 bolmo_status_name(bolmo_session_length((bolmo_session *)1, NULL)));
        CHECK(strstr(text, "ids: ") != NULL && strstr(text, "; invalid argument") != NULL);
    }
}

static void stays_in_place(void) {
    const char *place = bolmo_last_error_message();
    char name[250];
    for (size_t length = 1; length < sizeof name; length += 7) {
        bolmo_checkpoint *checkpoint = NULL;
        memset(name, 'x', length);
        CHECK_STATUS(BOLMO_NOT_FOUND, bolmo_checkpoint_open(name, length, &checkpoint));
        CHECK(bolmo_last_error_message() == place);
        CHECK(strstr(place, "xxx") != NULL || length < 3);
        /* Calls that succeed keep it. */
        bolmo_utf8 *utf8 = NULL;
        char before[600];
        snprintf(before, sizeof before, "%s", place);
        CHECK_OK(bolmo_utf8_create(&utf8));
        bolmo_utf8_delete(utf8);
        CHECK(strcmp(before, place) == 0);
    }
}

/* A message may be an argument of the call that replaces it. */
static void as_an_argument(void) {
    bolmo_checkpoint *checkpoint = NULL;
    CHECK_INVALID(bolmo_session_append_bos(NULL));
    for (int i = 0; i < 5; i++) {
        const char *message = bolmo_last_error_message();
        CHECK_STATUS(BOLMO_NOT_FOUND, bolmo_checkpoint_open(message, strlen(message), &checkpoint));
        CHECK_SAYS("bolmo_session: the handle must not be NULL");
    }
}

/* Long messages are cut at a character. */
static void long_messages(void) {
    /* A pattern that is quoted in the message, of characters with 2 bytes. */
    static char pattern[40000];
    bolmo_trainer_options *options = NULL;
    CHECK_OK(bolmo_trainer_options_create(&options));
    for (size_t i = 0; i + 1 < sizeof pattern; i += 2) memcpy(pattern + i, "\xc3\xa4", 2);
    for (size_t size = 39990; size <= 39998; size += 2) {
        CHECK_INVALID(bolmo_trainer_options_set_override(options, pattern, size));
        const char *message = bolmo_last_error_message();
        size_t length = strlen(message);
        CHECK(length > 4095 - 4 && length <= 4095);
        CHECK(strcmp(message + length - 3, "\xe2\x80\xa6") == 0);
        /* Whole characters: what stands before the mark is the end of one. */
        CHECK((unsigned char)message[length - 4] == 0xa4 && (unsigned char)message[length - 5] == 0xc3);
    }
    bolmo_trainer_options_delete(options);
}

static void *other_thread(void *place_of_main) {
    const char *place = bolmo_last_error_message();
    CHECK(place != place_of_main && place[0] == '\0');
    CHECK_INVALID(bolmo_session_append_bos(NULL));
    CHECK(bolmo_last_error_message() == place && place[0] != '\0');
    return NULL;
}

static void each_thread_has_its_own(void) {
    char before[600];
    const char *place = bolmo_last_error_message();
    bolmo_checkpoint *checkpoint = NULL;
    CHECK_STATUS(BOLMO_NOT_FOUND, bolmo_checkpoint_open("/nowhere/at/all", 15, &checkpoint));
    snprintf(before, sizeof before, "%s", place);
    for (int i = 0; i < 8; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, other_thread, (void *)(uintptr_t)place) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    CHECK(strcmp(before, place) == 0);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    CHECK(bolmo_last_error_message()[0] == '\0');
    in_one_expression();
    stays_in_place();
    as_an_argument();
    long_messages();
    each_thread_has_its_own();
    return end("messages");
}
