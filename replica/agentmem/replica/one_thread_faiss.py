"""faiss, which takes one thread for each search. This is the only module that imports it."""

import faiss

__all__ = ["faiss"]

# Questions come from many threads already, and a build runs beside them.
faiss.omp_set_num_threads(1)
