"""What pages and tasks of the module MedEnhance share: state, jobs and workers, errors."""
