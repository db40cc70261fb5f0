/* With sanitizers and under valgrind: drivers stay loaded to the end, so that what they leak can be told by their names (leaks.supp, valgrind.supp). */
int dlclose(void *handle);
int dlclose(void *handle) {
    (void)handle;
    return 0;
}
