# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's `dnnlib.util`: the one name under which tools look for everything that the files beside this one define."""

from dnnlib.cache import make_cache_dir_path, set_cache_dir
from dnnlib.console import Logger, ask_yes_no, format_time, format_time_brief
from dnnlib.download import is_url, open_url
from dnnlib.easydict import EasyDict
from dnnlib.files import copy_files_and_create_dirs, list_dir_recursively_with_ignore
from dnnlib.objects import (
    call_func_by_name,
    construct_class_by_name,
    get_module_dir_by_obj_name,
    get_module_from_obj_name,
    get_obj_by_name,
    get_obj_from_module,
    get_top_level_function_name,
    is_top_level_function,
)
from dnnlib.values import get_dtype_and_ctype, is_pickleable, tuple_product

__all__ = [
    "EasyDict",
    "Logger",
    "ask_yes_no",
    "call_func_by_name",
    "construct_class_by_name",
    "copy_files_and_create_dirs",
    "format_time",
    "format_time_brief",
    "get_dtype_and_ctype",
    "get_module_dir_by_obj_name",
    "get_module_from_obj_name",
    "get_obj_by_name",
    "get_obj_from_module",
    "get_top_level_function_name",
    "is_pickleable",
    "is_top_level_function",
    "is_url",
    "list_dir_recursively_with_ignore",
    "make_cache_dir_path",
    "open_url",
    "set_cache_dir",
    "tuple_product",
]
