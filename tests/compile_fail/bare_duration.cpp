// expect: conversion
#include <sotto/budget/units.hpp>

using namespace sotto::literals;
sotto::Budget budget = 10min;  // of audio, or of wall clock?
