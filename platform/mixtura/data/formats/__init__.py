"""Readers and writers of data formats, one file each."""
