"""CFA: a frozen backbone, the patch descriptor, the memory bank."""
