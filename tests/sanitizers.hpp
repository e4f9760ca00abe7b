// Whether a sanitizer brings allocators of its own, which must then stay.
#pragma once

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SOTTO_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define SOTTO_SANITIZED 1
#endif
#endif
#ifndef SOTTO_SANITIZED
#define SOTTO_SANITIZED 0
#endif
