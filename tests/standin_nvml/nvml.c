/* Test equipment: NVIDIA's management library for machines that have no NVIDIA GPU.
 *
 * NVML comes with the driver, so elsewhere the code that asks it would never run in a test. This
 * library carries its SONAME and answers the few calls that list GPUs; everything above it
 * (the package nvidia-ml-py, its ctypes declarations, its errors) is the real thing. A call that is
 * missing here is NVML_ERROR_FUNCTION_NOT_FOUND in pynvml, as with an old driver.
 *
 * STANDIN_GPUS describes the GPUs: "name,major.minor,bytes,free bytes;..."; it is read at every
 * nvmlInit, so a test may change it. Unset or empty means that no driver is loaded.
 *
 * Numbers, sizes and layouts are those of NVIDIA's NVML API reference (nvml.h).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, INSUFFICIENT_SIZE = 7,
       DRIVER_NOT_LOADED = 9, ARGUMENT_VERSION_MISMATCH = 25, UNKNOWN = 999 };

typedef struct {
    char name[96];
    int major, minor;
    unsigned long long total, free;
} Gpu; /* NVML's nvmlDevice_t is an opaque pointer; here it points to one of these */

typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory2;

static Gpu gpus[16];
static unsigned count, users; /* as in NVML, every nvmlInit needs an nvmlShutdown of its own */

static int copy(char *to, unsigned size, const char *text) {
    if (strlen(text) >= size) return INSUFFICIENT_SIZE;
    strcpy(to, text);
    return SUCCESS;
}

static int read_gpus(const char *text) {
    for (count = 0; count < sizeof gpus / sizeof *gpus; count++) {
        Gpu *gpu = &gpus[count];
        int length = 0;
        sscanf(text, "%95[^,;],%d.%d,%llu,%llu%n", gpu->name, &gpu->major, &gpu->minor,
               &gpu->total, &gpu->free, &length);
        if (length == 0 || gpu->free > gpu->total) break;
        if (text[length] == '\0') return count++, SUCCESS;
        if (text[length] != ';') break;
        text += length + 1;
    }
    /* A test with a typing error must not pass as one of a machine without a driver. */
    fprintf(stderr, "STANDIN_GPUS: expected name,major.minor,bytes,free bytes; got: %s\n", text);
    count = 0;
    return UNKNOWN;
}

int nvmlInitWithFlags(unsigned flags) {
    const char *text = getenv("STANDIN_GPUS");
    (void)flags;
    if (text == NULL || *text == '\0') return DRIVER_NOT_LOADED;
    int result = read_gpus(text);
    if (result == SUCCESS) users++;
    return result;
}

int nvmlShutdown(void) {
    if (users == 0) return UNINITIALIZED;
    users--;
    return SUCCESS;
}

const char *nvmlErrorString(int result) {
    return result == SUCCESS ? "Success" : "Error of the stand-in NVML";
}

int nvmlSystemGetDriverVersion(char *version, unsigned size) {
    return users ? copy(version, size, "580.65.06") : UNINITIALIZED;
}

int nvmlSystemGetCudaDriverVersion(int *version) {
    if (users == 0) return UNINITIALIZED;
    *version = 13000; /* 1000 * major + 10 * minor */
    return SUCCESS;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    return nvmlSystemGetCudaDriverVersion(version);
}

int nvmlDeviceGetCount_v2(unsigned *number) {
    if (users == 0) return UNINITIALIZED;
    *number = count;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Gpu **device) {
    if (users == 0) return UNINITIALIZED;
    if (index >= count) return INVALID_ARGUMENT;
    *device = &gpus[index];
    return SUCCESS;
}

int nvmlDeviceGetName(Gpu *gpu, char *name, unsigned size) {
    return users ? copy(name, size, gpu->name) : UNINITIALIZED;
}

int nvmlDeviceGetUUID(Gpu *gpu, char *uuid, unsigned size) {
    char text[96];
    snprintf(text, sizeof text, "GPU-00000000-0000-0000-0000-%012x", (unsigned)(gpu - gpus));
    return users ? copy(uuid, size, text) : UNINITIALIZED;
}

int nvmlDeviceGetCudaComputeCapability(Gpu *gpu, int *major, int *minor) {
    if (users == 0) return UNINITIALIZED;
    *major = gpu->major, *minor = gpu->minor;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(Gpu *gpu, Memory *memory) {
    if (users == 0) return UNINITIALIZED;
    *memory = (Memory){gpu->total, gpu->free, gpu->total - gpu->free};
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(Gpu *gpu, Memory2 *memory) {
    if (users == 0) return UNINITIALIZED;
    if (memory->version != (sizeof *memory | 2u << 24)) return ARGUMENT_VERSION_MISMATCH;
    *memory = (Memory2){memory->version, gpu->total, 0, gpu->free, gpu->total - gpu->free};
    return SUCCESS;
}
