/*
 * Compiled by TestABIIsThatOfNVIDIAsHeaders against NVIDIA's own headers: abi.h's
 * names become aliases of NVIDIA's types, so that its assertions of sizes and
 * offsets are about those, and every signature is compared.
 */
#include <cuda.h>
#include <cufile.h>

typedef CUresult stoker_cuda_result;
typedef CUdevice stoker_cuda_device;
typedef CUdevice_attribute stoker_cuda_attribute;
typedef CUmemAllocationHandleType stoker_cuda_handle_type;
typedef CUmemAllocationGranularity_flags stoker_cuda_granularity;
typedef CUdeviceptr stoker_cuda_address;
typedef CUmemGenericAllocationHandle stoker_cuda_allocation;
typedef CUcontext stoker_cuda_context;
typedef CUstream stoker_cuda_stream;
typedef CUuuid stoker_cuda_uuid;
typedef CUipcMemHandle stoker_cuda_ipc_handle;
typedef CUmemLocation stoker_cuda_location;
typedef CUmemAllocationProp stoker_cuda_allocation_properties;
typedef CUmemAccessDesc stoker_cuda_access;

typedef CUfileHandle_t stoker_cufile_handle;
typedef CUFileSizeTConfigParameter_t stoker_cufile_size_parameter;
typedef CUFileBoolConfigParameter_t stoker_cufile_bool_parameter;
typedef CUFileStringConfigParameter_t stoker_cufile_string_parameter;
typedef CUfileError_t stoker_cufile_error;
typedef CUfileDescr_t stoker_cufile_descriptor;
typedef CUfileDrvProps_t stoker_cufile_properties;
typedef CUfileOpCounter_t stoker_cufile_counter;
typedef CUfileStatsLevel1_t stoker_cufile_stats1;
typedef CUfileStatsLevel2_t stoker_cufile_stats2;
typedef CUfilePerGpuStats_t stoker_cufile_gpu_stats;
typedef CUfileStatsLevel3_t stoker_cufile_stats3;

#define STOKER_VENDOR_TYPES
#include "abi.h"

/* cuda.h renames functions to the _v2 that abi.h looks up, so the names must agree. */
#define STOKER_TEXT_(name) #name
#define STOKER_TEXT(name) STOKER_TEXT_(name)
#define STOKER_SAME(function, symbol, since, needed, result, arguments) \
	_Static_assert(__builtin_types_compatible_p(__typeof__(function), result arguments), symbol); \
	_Static_assert(__builtin_strcmp(STOKER_TEXT(function), symbol) == 0, "the header's name of " symbol);
STOKER_CUDA_FUNCTIONS(STOKER_SAME)

/* cuFileDriverClose is the macro that hides the older function of that name. */
#undef cuFileDriverClose
STOKER_CUFILE_FUNCTIONS(STOKER_SAME)
