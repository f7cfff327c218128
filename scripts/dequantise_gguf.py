"""Writes a GGUF file with every tensor in f32: python3 scripts/dequantise_gguf.py IN.gguf OUT.gguf

llama.cpp multiplies quantised weights with activations rounded to 8 bits. On the file that this
script writes it multiplies f32 by f32, so that a difference between programs on the original file can
be told from one in how they read it.
"""

import sys

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize

ALL_F32 = 0


def main(source: str, target: str) -> None:
    reader = GGUFReader(source)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        if field.name == "general.file_type":
            writer.add_uint32(field.name, ALL_F32)
            continue
        kind = field.types[0]
        item = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=item)
    shapes = [[int(size) for size in reversed(tensor.shape)] for tensor in reader.tensors]
    f32 = np.dtype(np.float32)
    for tensor, shape in zip(reader.tensors, shapes):
        writer.add_tensor_info(tensor.name, shape, f32, 4 * int(np.prod(shape)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, shape in zip(reader.tensors, shapes):
        numbers = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.write_tensor_data(numbers.reshape(shape))
    writer.close()


if __name__ == "__main__":
    main(*sys.argv[1:3])
