"""One module for each dataset; the module name is the task name."""
