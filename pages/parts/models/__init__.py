"""What finished jobs leave behind: exports, lineage, downloads."""
