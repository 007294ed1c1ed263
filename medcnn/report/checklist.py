"""x"""
def checklist_blocks(reading): return []
