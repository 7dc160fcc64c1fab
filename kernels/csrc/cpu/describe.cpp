// What this library is and what its error codes mean.
#include "common.h"

#define SPLAT_TEXT_(x) #x
#define SPLAT_TEXT(x) SPLAT_TEXT_(x)
#ifndef SPLAT_LEVEL
#define SPLAT_LEVEL unknown
#endif

extern "C" int splat_abi(void) { return SPLAT_ABI; }

extern "C" const char* splat_describe(void) {
    return sizeof(real) == 8 ? "cpu " SPLAT_TEXT(SPLAT_LEVEL) " float64" : "cpu " SPLAT_TEXT(SPLAT_LEVEL) " float32";
}

extern "C" const char* splat_error(int code) {
    switch (code) {
        case SPLAT_OK: return "no error";
        case SPLAT_BAD_OPTIONS: return "options or arrays that do not belong together (another ABI version, element type or scene)";
        case SPLAT_TOO_MANY_ENTRIES: return "more than 2^31 list entries in one view: fewer or smaller Gaussians, or a smaller image";
        case SPLAT_NO_MEMORY: return "out of memory";
        default: return "unknown error";
    }
}

extern "C" int64_t splat_scratch(const SplatOptions*, int32_t, int64_t) { return 0; }
