"""Parts that pages and tasks of the module MedEnhance share: state, jobs, workers, errors."""
