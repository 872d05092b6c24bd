"""Recording a federation that really runs."""
