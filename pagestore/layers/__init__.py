"""Layers: files and memory that hold values by key and LSN. The work is native."""
