/* A library that loads.c opens and closes again. */
#include <stdlib.h>
#include <string.h>

int plugin(int (*back)(int), int n)
{
    char *text = malloc(100);
    memset(text, n, 100);
    int result = back(text[0]) + (n ? plugin(back, n - 1) : 0);
    free(text);
    return result;
}
