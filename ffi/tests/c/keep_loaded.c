/* For sanitizers and valgrind: drivers stay loaded to the end, so that their leaks can be suppressed by name
   (leaks.supp, valgrind.supp). */
int dlclose(void *handle);
int dlclose(void *handle) {
    (void)handle;
    return 0;
}
