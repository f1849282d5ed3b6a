// Where a 16-byte piece of a tile lies in shared memory, so that eight threads that read one column
// of pieces, or eight neighbouring pieces, meet no bank twice. Plain C++; a test counts the banks.
#pragma once

#if defined(__CUDACC__) || defined(EMULATED)
#    define ON_BOTH __host__ __device__
#else
#    define ON_BOTH
#endif

// The place, in pieces, of piece `column` of row `row`. `columns`: pieces per row, a power of two.
// Shared memory has 128 bytes per cycle, 8 pieces: a row of fewer is moved once per 8 / columns.
ON_BOTH constexpr int swizzled(int row, int column, int columns) {
    const int moved = columns < 8 ? row / (8 / columns) % columns : row % 8;
    return row * columns + (column ^ moved);
}
