<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="es" sourcelanguage="en">
<context>
    <name>Compress</name>
    <message>
        <source>Compress a volume</source>
        <translation>Comprimir un volumen</translation>
    </message>
    <message>
        <source>Volume:</source>
        <translation>Volumen:</translation>
    </message>
    <message>
        <source>Volume</source>
        <translation>Volumen</translation>
    </message>
    <message>
        <source>The volume, or the sequence of volumes, to compress</source>
        <translation>El volumen, o la secuencia de volúmenes, que se comprime</translation>
    </message>
    <message>
        <source>Choose a volume</source>
        <translation>Elija un volumen</translation>
    </message>
    <message>
        <source>Compression mode</source>
        <translation>Modo de compresión</translation>
    </message>
    <message>
        <source>Lossless</source>
        <translation>Sin pérdida</translation>
    </message>
    <message>
        <source>Every voxel is restored exactly.</source>
        <translation>Cada vóxel se restituye exactamente.</translation>
    </message>
    <message>
        <source>Maximum error:</source>
        <translation>Error máximo:</translation>
    </message>
    <message>
        <source>Largest error of a voxel</source>
        <translation>Error máximo de un vóxel</translation>
    </message>
    <message>
        <source>The largest error that any voxel may have, in the volume&apos;s units</source>
        <translation>El mayor error que puede tener un vóxel, en las unidades del volumen</translation>
    </message>
    <message>
        <source>The error of every voxel stays within this bound.</source>
        <translation>El error de cada vóxel no supera este límite.</translation>
    </message>
    <message>
        <source>Compression ratio:</source>
        <translation>Compresión:</translation>
    </message>
    <message>
        <source>Compression ratio</source>
        <translation>Relación de compresión</translation>
    </message>
    <message>
        <source>The file will be at least this many times smaller than the voxels</source>
        <translation>El archivo será al menos este número de veces menor que los vóxeles</translation>
    </message>
    <message>
        <source> times</source>
        <translation> veces</translation>
    </message>
    <message>
        <source>The best quality for this file size. The error of a single voxel is not bounded.</source>
        <translation>La mejor calidad para este tamaño de archivo. El error de un vóxel concreto no está acotado.</translation>
    </message>
    <message>
        <source>Quality, at least:</source>
        <translation>Calidad mínima:</translation>
    </message>
    <message>
        <source>PSNR</source>
        <translation>PSNR</translation>
    </message>
    <message>
        <source>PSNR: the mean error relative to the full range of the volume; 6 dB more halve the error</source>
        <translation>PSNR: el error medio respecto al intervalo completo del volumen; 6 dB más reducen el error a la mitad</translation>
    </message>
    <message>
        <source> dB</source>
        <translation> dB</translation>
    </message>
    <message>
        <source>The smallest file that reaches this PSNR. The error of a single voxel is not bounded.</source>
        <translation>El archivo más pequeño que alcanza este PSNR. El error de un vóxel concreto no está acotado.</translation>
    </message>
    <message>
        <source>Similarity (SSIM), at least:</source>
        <translation>SSIM mínimo:</translation>
    </message>
    <message>
        <source>SSIM in 3D</source>
        <translation>SSIM en 3D</translation>
    </message>
    <message>
        <source>SSIM in 3D: how alike the structures are, 1 for equal volumes</source>
        <translation>SSIM en 3D: cuánto se parecen las estructuras, 1 para volúmenes iguales</translation>
    </message>
    <message>
        <source>The smallest file that reaches this SSIM. The error of a single voxel is not bounded.</source>
        <translation>El archivo más pequeño que alcanza este SSIM. El error de un vóxel concreto no está acotado.</translation>
    </message>
    <message>
        <source>Speed of compression</source>
        <translation>Velocidad de la compresión</translation>
    </message>
    <message>
        <source>How long compression may take for a smaller file</source>
        <translation>Cuánto puede tardar la compresión para obtener un archivo menor</translation>
    </message>
    <message>
        <source>The models that decoding needs. Without them, the file opens wherever this version of MedEnhance, or a newer one, is installed</source>
        <translation>Los modelos que necesita la descodificación. Sin ellos, el archivo se abre donde esté instalada esta versión de MedEnhance o una más reciente</translation>
    </message>
    <message>
        <source>Include models in the file (100 kB)</source>
        <translation>Incluir los modelos (100 kB)</translation>
    </message>
    <message>
        <source>Save as:</source>
        <translation>Guardar como:</translation>
    </message>
    <message>
        <source>Save as</source>
        <translation>Guardar como</translation>
    </message>
    <message>
        <source>The compressed file, ending in .ucv</source>
        <translation>El archivo comprimido, que termina en .ucv</translation>
    </message>
    <message>
        <source>A file ending in .ucv</source>
        <translation>Un archivo que termine en .ucv</translation>
    </message>
    <message>
        <source>Choose the place in a dialog</source>
        <translation>Elegir el lugar en un diálogo</translation>
    </message>
    <message>
        <source>Choose in a dialog</source>
        <translation>Elegir en un diálogo</translation>
    </message>
    <message>
        <source>Without this, an existing file is never overwritten</source>
        <translation>Sin esto, un archivo existente nunca se sobrescribe</translation>
    </message>
    <message>
        <source>Replace the existing file</source>
        <translation>Reemplazar el archivo existente</translation>
    </message>
    <message>
        <source>Compress</source>
        <translation>Comprimir</translation>
    </message>
    <message>
        <source>Progress of the compression</source>
        <translation>Progreso de la compresión</translation>
    </message>
    <message>
        <source>Stop; an existing file at the destination is kept</source>
        <translation>Detener; se conserva el archivo existente en el destino</translation>
    </message>
    <message>
        <source>Cancel</source>
        <translation>Cancelar</translation>
    </message>
    <message>
        <source>Result</source>
        <translation>Resultado</translation>
    </message>
    <message>
        <source>Decode the file and show the difference as a new volume</source>
        <translation>Descodificar el archivo y mostrar la diferencia como un volumen nuevo</translation>
    </message>
    <message>
        <source>Show the difference</source>
        <translation>Mostrar la diferencia</translation>
    </message>
    <message>
        <source>Open a compressed file</source>
        <translation>Abrir un archivo comprimido</translation>
    </message>
    <message>
        <source>File:</source>
        <translation>Archivo:</translation>
    </message>
    <message>
        <source>File</source>
        <translation>Archivo</translation>
    </message>
    <message>
        <source>A file that MedEnhance compressed (.ucv)</source>
        <translation>Un archivo comprimido por MedEnhance (.ucv)</translation>
    </message>
    <message>
        <source>Choose the compressed file in a dialog</source>
        <translation>Elegir el archivo comprimido en un diálogo</translation>
    </message>
    <message>
        <source>From the first to the last index, counted from 0; only the blocks that overlap the region are decoded</source>
        <translation>Del primer al último índice, contando desde 0; solo se descodifican los bloques que se solapan con la región</translation>
    </message>
    <message>
        <source>Only a region</source>
        <translation>Solo una región</translation>
    </message>
    <message>
        <source>Frames:</source>
        <translation>Fotogramas:</translation>
    </message>
    <message>
        <source>First frame</source>
        <translation>Primer fotograma</translation>
    </message>
    <message>
        <source>First, counted from 0</source>
        <translation>El primero, contando desde 0</translation>
    </message>
    <message>
        <source>to</source>
        <translation>a</translation>
    </message>
    <message>
        <source>Last frame</source>
        <translation>Último fotograma</translation>
    </message>
    <message>
        <source>Last, included</source>
        <translation>El último, incluido</translation>
    </message>
    <message>
        <source>Slices:</source>
        <translation>Cortes:</translation>
    </message>
    <message>
        <source>First slice</source>
        <translation>Primer corte</translation>
    </message>
    <message>
        <source>Last slice</source>
        <translation>Último corte</translation>
    </message>
    <message>
        <source>Rows:</source>
        <translation>Filas:</translation>
    </message>
    <message>
        <source>First row</source>
        <translation>Primera fila</translation>
    </message>
    <message>
        <source>Last row</source>
        <translation>Última fila</translation>
    </message>
    <message>
        <source>Columns:</source>
        <translation>Columnas:</translation>
    </message>
    <message>
        <source>First column</source>
        <translation>Primera columna</translation>
    </message>
    <message>
        <source>Last column</source>
        <translation>Última columna</translation>
    </message>
    <message>
        <source>Layers:</source>
        <translation>Capas:</translation>
    </message>
    <message>
        <source>Layers</source>
        <translation>Capas</translation>
    </message>
    <message>
        <source>Fewer layers open faster and show less detail</source>
        <translation>Con menos capas se abre más rápido y se ve menos detalle</translation>
    </message>
    <message>
        <source>of 1</source>
        <translation>de 1</translation>
    </message>
    <message>
        <source>Open</source>
        <translation>Abrir</translation>
    </message>
    <message>
        <source>Open all parts of the damaged file that can still be read</source>
        <translation>Abrir todas las partes del archivo dañado que aún se puedan leer</translation>
    </message>
    <message>
        <source>Recover intact parts</source>
        <translation>Recuperar las partes intactas</translation>
    </message>
    <message>
        <source>Progress of opening</source>
        <translation>Progreso de la apertura</translation>
    </message>
    <message>
        <source>Stop opening the file</source>
        <translation>Dejar de abrir el archivo</translation>
    </message>
</context>
<context>
    <name>Distill</name>
    <message>
        <source>A network learns from the cohort to enhance other volumes</source>
        <translation>Una red aprende de la cohorte a mejorar otros volúmenes</translation>
    </message>
    <message>
        <source>Train an enhancer</source>
        <translation>Entrenar un mejorador</translation>
    </message>
    <message>
        <source>A few images, or some numbers, take the place of the cohort&apos;s images: for training elsewhere</source>
        <translation>Unas pocas imágenes, o unos números, ocupan el lugar de las imágenes de la cohorte: para entrenar en otro sitio</translation>
    </message>
    <message>
        <source>Distill a cohort</source>
        <translation>Destilar una cohorte</translation>
    </message>
    <message>
        <source>Cohort</source>
        <translation>Cohorte</translation>
    </message>
    <message>
        <source>Loaded volumes, by patient as in the subject hierarchy</source>
        <translation>Volúmenes cargados, por paciente como en la jerarquía de sujetos</translation>
    </message>
    <message>
        <source>Volumes of the scene</source>
        <translation>Volúmenes de la escena</translation>
    </message>
    <message>
        <source>Files on disk, without loading them into the scene</source>
        <translation>Archivos del disco, sin cargarlos en la escena</translation>
    </message>
    <message>
        <source>Files</source>
        <translation>Archivos</translation>
    </message>
    <message>
        <source>Volumes and patients of the cohort</source>
        <translation>Volúmenes y pacientes de la cohorte</translation>
    </message>
    <message>
        <source>Patient</source>
        <translation>Paciente</translation>
    </message>
    <message>
        <source>Volume</source>
        <translation>Volumen</translation>
    </message>
    <message>
        <source>Use as</source>
        <translation>Usar como</translation>
    </message>
    <message>
        <source>Folder:</source>
        <translation>Carpeta:</translation>
    </message>
    <message>
        <source>Folder</source>
        <translation>Carpeta</translation>
    </message>
    <message>
        <source>The folder that the patterns are relative to</source>
        <translation>La carpeta a la que se refieren los patrones</translation>
    </message>
    <message>
        <source>A folder of volumes</source>
        <translation>Una carpeta de volúmenes</translation>
    </message>
    <message>
        <source>Choose the folder of images in a dialog</source>
        <translation>Elegir la carpeta de imágenes en un diálogo</translation>
    </message>
    <message>
        <source>Choose in a dialog</source>
        <translation>Elegir en un diálogo</translation>
    </message>
    <message>
        <source>Good images:</source>
        <translation>Imágenes buenas:</translation>
    </message>
    <message>
        <source>Good images</source>
        <translation>Imágenes buenas</translation>
    </message>
    <message>
        <source>Pattern of the files to learn from, for example hq/*.nii.gz; several with commas</source>
        <translation>Patrón de los archivos de los que se aprende, por ejemplo hq/*.nii.gz; varios, separados por comas</translation>
    </message>
    <message>
        <source>Poor images:</source>
        <translation>Deficientes:</translation>
    </message>
    <message>
        <source>Poor images</source>
        <translation>Deficientes</translation>
    </message>
    <message>
        <source>Pattern of files of ordinary quality, from other patients; may be empty</source>
        <translation>Patrón de los archivos de calidad corriente, de otros pacientes; puede quedar vacío</translation>
    </message>
    <message>
        <source>Labels:</source>
        <translation>Etiquetas:</translation>
    </message>
    <message>
        <source>Pattern of the label volumes</source>
        <translation>Patrón de los volúmenes de etiquetas</translation>
    </message>
    <message>
        <source>Pattern of the label volumes of the good images, in the same order, for example labels/*; several with commas. A voxel holds the number of the segmenter&apos;s label, 0 is the background</source>
        <translation>Patrón de los volúmenes de etiquetas de las imágenes buenas, en el mismo orden, por ejemplo labels/*; varios, separados por comas. Un vóxel contiene el número de la etiqueta del segmentador, 0 es el fondo</translation>
    </message>
    <message>
        <source>Patients:</source>
        <translation>Pacientes:</translation>
    </message>
    <message>
        <source>Patients</source>
        <translation>Pacientes</translation>
    </message>
    <message>
        <source>A folder with a folder for each patient (or a file each), a folder of DICOM, or a table (CSV) with the columns patient and path</source>
        <translation>Una carpeta con una carpeta por paciente (o un archivo por paciente), una carpeta DICOM, o una tabla (CSV) con las columnas patient y path</translation>
    </message>
    <message>
        <source>A folder, or a table (CSV)</source>
        <translation>Una carpeta, o una tabla (CSV)</translation>
    </message>
    <message>
        <source>Choose the place in a dialog</source>
        <translation>Elegir el lugar en un diálogo</translation>
    </message>
    <message>
        <source>Choose a folder in a dialog</source>
        <translation>Elegir una carpeta en un diálogo</translation>
    </message>
    <message>
        <source>Choose a table (CSV: patient, path) in a dialog</source>
        <translation>Elegir una tabla (CSV: patient, path) en un diálogo</translation>
    </message>
    <message>
        <source>CSV…</source>
        <translation>CSV…</translation>
    </message>
    <message>
        <source>Files:</source>
        <translation>Archivos:</translation>
    </message>
    <message>
        <source>Pattern of the names of files that are images, for example T1*.nii.gz where labels lie beside them</source>
        <translation>Patrón de los nombres de los archivos que son imágenes, por ejemplo T1*.nii.gz si junto a ellos hay etiquetas</translation>
    </message>
    <message>
        <source>Options</source>
        <translation>Opciones</translation>
    </message>
    <message>
        <source>Images:</source>
        <translation>Imágenes:</translation>
    </message>
    <message>
        <source>Images</source>
        <translation>Imágenes</translation>
    </message>
    <message>
        <source>What kind of images the enhancer is for</source>
        <translation>Para qué tipo de imágenes es el mejorador</translation>
    </message>
    <message>
        <source>Segmenter:</source>
        <translation>Segmentador:</translation>
    </message>
    <message>
        <source>Segmenter</source>
        <translation>Segmentador</translation>
    </message>
    <message>
        <source>A segmenter that stays as it is, and that the enhancer is made for: a MONAI bundle (folder or zip), weights with a description (NAME.json beside them), a TorchScript file, or a head of MedEnhance. Empty: an enhancer for looking at</source>
        <translation>Un segmentador que no cambia, y para el que se hace el mejorador: un bundle de MONAI (carpeta o zip), pesos con una descripción (NAME.json junto a ellos), un archivo TorchScript, o una cabeza de MedEnhance. Vacío: un mejorador para ver las imágenes</translation>
    </message>
    <message>
        <source>None: made for looking at</source>
        <translation>Ninguno: para ver las imágenes</translation>
    </message>
    <message>
        <source>Choose the segmenter in a dialog</source>
        <translation>Elegir el segmentador en un diálogo</translation>
    </message>
    <message>
        <source>Choose a file in a dialog</source>
        <translation>Elegir un archivo en un diálogo</translation>
    </message>
    <message>
        <source>Folder…</source>
        <translation>Carpeta…</translation>
    </message>
    <message>
        <source>TorchScript runs code of its author. Allow it only if you trust where it comes from. This is not saved with the scene</source>
        <translation>TorchScript ejecuta código de su autor. Permítalo solo si confía en su procedencia. Esto no se guarda con la escena</translation>
    </message>
    <message>
        <source>Run the program in it</source>
        <translation>Ejecutar el programa que contiene</translation>
    </message>
    <message>
        <source>Steps:</source>
        <translation>Pasos:</translation>
    </message>
    <message>
        <source>Steps</source>
        <translation>Pasos</translation>
    </message>
    <message>
        <source>Number of training steps; 0 uses the number set by the budget</source>
        <translation>Número de pasos del entrenamiento; 0 usa el que fija la duración</translation>
    </message>
    <message>
        <source>set by the budget</source>
        <translation>según la duración</translation>
    </message>
    <message>
        <source>Purpose:</source>
        <translation>Fin:</translation>
    </message>
    <message>
        <source>Purpose</source>
        <translation>Fin</translation>
    </message>
    <message>
        <source>The task that small networks will be trained for on the distilled images</source>
        <translation>La tarea para la que se entrenarán redes pequeñas con las imágenes destiladas</translation>
    </message>
    <message>
        <source>Method:</source>
        <translation>Método:</translation>
    </message>
    <message>
        <source>Method</source>
        <translation>Método</translation>
    </message>
    <message>
        <source>Modality:</source>
        <translation>Modalidad:</translation>
    </message>
    <message>
        <source>Modality</source>
        <translation>Modalidad</translation>
    </message>
    <message>
        <source>Needed if the files do not state it; for DICOM it selects the series</source>
        <translation>Necesaria si los archivos no la indican; en DICOM selecciona la serie</translation>
    </message>
    <message>
        <source>Prior:</source>
        <translation>Partida:</translation>
    </message>
    <message>
        <source>Prior</source>
        <translation>Volumen de partida</translation>
    </message>
    <message>
        <source>The volume that all distilled images start from and stay similar to; a person it shows can be recognized in them</source>
        <translation>El volumen de partida, del que salen todas las imágenes destiladas y al que siguen pareciéndose; si muestra a una persona, se la puede reconocer en ellas</translation>
    </message>
    <message>
        <source>Volume of the prior</source>
        <translation>Volumen de partida elegido en la escena</translation>
    </message>
    <message>
        <source>A volume that may be shared: every image will show its anatomy</source>
        <translation>Un volumen que se pueda compartir: todas las imágenes mostrarán su anatomía</translation>
    </message>
    <message>
        <source>(choose a volume)</source>
        <translation>(elija un volumen)</translation>
    </message>
    <message>
        <source>File of the prior</source>
        <translation>Archivo de partida</translation>
    </message>
    <message>
        <source>A volume (.nii.gz, .nrrd, …)</source>
        <translation>Un volumen (.nii.gz, .nrrd, …)</translation>
    </message>
    <message>
        <source>Choose the prior in a dialog</source>
        <translation>Elegir el volumen de partida en un diálogo</translation>
    </message>
    <message>
        <source>Patient of the prior</source>
        <translation>Paciente de partida</translation>
    </message>
    <message>
        <source>This patient can be recognized in every image; for DICOM, enter the PatientID</source>
        <translation>Este paciente puede ser reconocido en todas las imágenes; en DICOM, introduzca el PatientID</translation>
    </message>
    <message>
        <source>Images per patient:</source>
        <translation>Imágenes por paciente:</translation>
    </message>
    <message>
        <source>Images per patient</source>
        <translation>Imágenes por paciente</translation>
    </message>
    <message>
        <source>Number of distilled images for each patient</source>
        <translation>Número de imágenes destiladas por cada paciente</translation>
    </message>
    <message>
        <source>Held out:</source>
        <translation>Reservados:</translation>
    </message>
    <message>
        <source>Held out</source>
        <translation>Reservados</translation>
    </message>
    <message>
        <source>Share of the patients that are not distilled; the audit compares the distilled patients with them</source>
        <translation>Parte de los pacientes que no se destila; la auditoría compara con ellos los pacientes destilados</translation>
    </message>
    <message>
        <source> %</source>
        <translation> %</translation>
    </message>
    <message>
        <source>License:</source>
        <translation>Licencia:</translation>
    </message>
    <message>
        <source>License</source>
        <translation>Licencia</translation>
    </message>
    <message>
        <source>Under which others may use the distilled images, for example CC BY 4.0; without one nobody may, and the result says so</source>
        <translation>Bajo la que otros pueden usar las imágenes destiladas, por ejemplo CC BY 4.0; sin ella nadie puede, y el resultado lo indica</translation>
    </message>
    <message>
        <source>none: nobody may use the images yet</source>
        <translation>ninguna: nadie puede usar aún las imágenes</translation>
    </message>
    <message>
        <source>Budget:</source>
        <translation>Duración:</translation>
    </message>
    <message>
        <source>Budget</source>
        <translation>Duración</translation>
    </message>
    <message>
        <source>How long the run may take</source>
        <translation>Cuánto puede tardar la ejecución</translation>
    </message>
    <message>
        <source>Name:</source>
        <translation>Nombre:</translation>
    </message>
    <message>
        <source>Name</source>
        <translation>Nombre</translation>
    </message>
    <message>
        <source>Name of the run&apos;s folder; for a training, also of the model</source>
        <translation>Nombre de la carpeta de la ejecución; en un entrenamiento, también del modelo</translation>
    </message>
    <message>
        <source>Advanced</source>
        <translation>Avanzado</translation>
    </message>
    <message>
        <source>Device:</source>
        <translation>Dispositivo:</translation>
    </message>
    <message>
        <source>Device</source>
        <translation>Dispositivo</translation>
    </message>
    <message>
        <source>The device that the run computes on</source>
        <translation>El dispositivo en el que calcula la ejecución</translation>
    </message>
    <message>
        <source>Runs in:</source>
        <translation>Guardar en:</translation>
    </message>
    <message>
        <source>Runs in</source>
        <translation>Guardar en</translation>
    </message>
    <message>
        <source>Each run gets its own folder in here; it is needed to resume the run</source>
        <translation>Cada ejecución tiene aquí su propia carpeta; hace falta para reanudarla</translation>
    </message>
    <message>
        <source>Choose the folder of runs in a dialog</source>
        <translation>Elegir la carpeta de las ejecuciones en un diálogo</translation>
    </message>
    <message>
        <source>Run</source>
        <translation>Ejecución</translation>
    </message>
    <message>
        <source>Measure first what distillation can add for other patients of this cohort: small networks learn from the public prior, from the prior with the cohort&apos;s statistics, and from all images</source>
        <translation>Medir antes lo que la destilación puede aportar a otros pacientes de esta cohorte: unas redes pequeñas aprenden del volumen de partida público, de él con las estadísticas de la cohorte, y de todas las imágenes</translation>
    </message>
    <message>
        <source>Estimate what can be gained</source>
        <translation>Estimar lo que se puede ganar</translation>
    </message>
    <message>
        <source>Start</source>
        <translation>Iniciar</translation>
    </message>
    <message>
        <source>Stop after writing a checkpoint; Resume continues from it, also after Slicer was closed</source>
        <translation>Detener tras escribir un punto de control; Reanudar continúa desde él, también después de cerrar Slicer</translation>
    </message>
    <message>
        <source>Pause</source>
        <translation>Pausa</translation>
    </message>
    <message>
        <source>Stop permanently; the run&apos;s folder is kept</source>
        <translation>Detener definitivamente; se conserva la carpeta de la ejecución</translation>
    </message>
    <message>
        <source>Cancel</source>
        <translation>Cancelar</translation>
    </message>
    <message>
        <source>Show the loss in a plot view of the layout</source>
        <translation>Mostrar la pérdida en una vista de gráfica de la disposición</translation>
    </message>
    <message>
        <source>Plot</source>
        <translation>Gráfica</translation>
    </message>
    <message>
        <source>Runs that can be resumed</source>
        <translation>Ejecuciones que se pueden reanudar</translation>
    </message>
    <message>
        <source>Continue this run from its last checkpoint</source>
        <translation>Continuar esta ejecución desde su último punto de control</translation>
    </message>
    <message>
        <source>Resume</source>
        <translation>Reanudar</translation>
    </message>
    <message>
        <source>Progress</source>
        <translation>Progreso</translation>
    </message>
    <message>
        <source>Result</source>
        <translation>Resultado</translation>
    </message>
    <message>
        <source>The prior that all images started from</source>
        <translation>El volumen de partida de todas las imágenes</translation>
    </message>
    <message>
        <source>The distilled images</source>
        <translation>Las imágenes destiladas</translation>
    </message>
    <message>
        <source>The distilled images, in an order that does not show which patient they come from</source>
        <translation>Las imágenes destiladas, en un orden que no revela de qué paciente proceden</translation>
    </message>
    <message>
        <source>Report of the audit</source>
        <translation>Informe de la auditoría</translation>
    </message>
    <message>
        <source>What each attack found, and what it could have missed</source>
        <translation>Lo que encontró cada ataque, y lo que pudo pasar por alto</translation>
    </message>
    <message>
        <source>The images with their card, manifest and audit. Read the audit before sharing them</source>
        <translation>Las imágenes con su ficha, su manifiesto y su auditoría. Lea la auditoría antes de compartirlas</translation>
    </message>
    <message>
        <source>Result folder</source>
        <translation>Carpeta del resultado</translation>
    </message>
    <message>
        <source>Pictures and names of patients: do not share them</source>
        <translation>Imágenes y nombres de pacientes: no los comparta</translation>
    </message>
    <message>
        <source>Confidential files</source>
        <translation>Archivos confidenciales</translation>
    </message>
    <message>
        <source>Pictures of the run</source>
        <translation>Imágenes de la ejecución</translation>
    </message>
</context>
<context>
    <name>Enhance</name>
    <message>
        <source>Volume:</source>
        <translation>Volumen:</translation>
    </message>
    <message>
        <source>Volume</source>
        <translation>Volumen</translation>
    </message>
    <message>
        <source>The volume, or sequence of volumes, to enhance; it is not changed</source>
        <translation>El volumen, o la secuencia de volúmenes, que se mejora; no se modifica</translation>
    </message>
    <message>
        <source>Choose a volume of the scene</source>
        <translation>Elija un volumen de la escena</translation>
    </message>
    <message>
        <source>All &amp;frames of the sequence</source>
        <translation>Todos los &amp;fotogramas de la secuencia</translation>
    </message>
    <message>
        <source>Enhance every frame, into a new sequence</source>
        <translation>Mejorar cada fotograma, en una secuencia nueva</translation>
    </message>
    <message>
        <source>Task:</source>
        <translation>Tarea:</translation>
    </message>
    <message>
        <source>Task</source>
        <translation>Tarea</translation>
    </message>
    <message>
        <source>What is corrected. Automatic: noise, and in MR blur and shading where they are found</source>
        <translation>Lo que se corrige. Automático: el ruido y, en RM, la borrosidad y el sombreado donde se encuentren</translation>
    </message>
    <message>
        <source>The model&apos;s card</source>
        <translation>La ficha del modelo</translation>
    </message>
    <message>
        <source>Guide:</source>
        <translation>Guía:</translation>
    </message>
    <message>
        <source>Guide: another series of this examination</source>
        <translation>Guía: otra serie de este estudio</translation>
    </message>
    <message>
        <source>Another series of this examination, of any contrast: it helps to separate noise from anatomy</source>
        <translation>Otra serie de este estudio, de cualquier contraste: ayuda a separar el ruido de la anatomía</translation>
    </message>
    <message>
        <source>None (another series of this examination)</source>
        <translation>Ninguna (otra serie de este estudio)</translation>
    </message>
    <message>
        <source>Take the suggested guide</source>
        <translation>Usar la guía sugerida</translation>
    </message>
    <message>
        <source>Output:</source>
        <translation>Salida:</translation>
    </message>
    <message>
        <source>Output</source>
        <translation>Salida</translation>
    </message>
    <message>
        <source>The volume for the result; an existing volume that is chosen here is overwritten</source>
        <translation>El volumen para el resultado; si se elige aquí un volumen existente, se sobrescribe</translation>
    </message>
    <message>
        <source>Create new volume</source>
        <translation>Crear un volumen nuevo</translation>
    </message>
    <message>
        <source>&amp;Overwrite this original</source>
        <translation>S&amp;obrescribir este original</translation>
    </message>
    <message>
        <source>Its voxels are lost; the result takes their place</source>
        <translation>Sus vóxeles se pierden; el resultado ocupa su lugar</translation>
    </message>
    <message>
        <source>Advanced</source>
        <translation>Avanzado</translation>
    </message>
    <message>
        <source>Preset:</source>
        <translation>Preajuste:</translation>
    </message>
    <message>
        <source>Preset</source>
        <translation>Preajuste</translation>
    </message>
    <message>
        <source>Choices that you saved for volumes of this modality; choosing one sets the task and all below</source>
        <translation>Opciones que usted guardó para volúmenes de esta modalidad; al elegir uno se fijan la tarea y todo lo de abajo</translation>
    </message>
    <message>
        <source>Save the task and the choices below under a name, on this computer</source>
        <translation>Guardar la tarea y las opciones de abajo con un nombre, en este equipo</translation>
    </message>
    <message>
        <source>Save…</source>
        <translation>Guardar…</translation>
    </message>
    <message>
        <source>Remove this preset</source>
        <translation>Quitar este preajuste</translation>
    </message>
    <message>
        <source>Model:</source>
        <translation>Modelo:</translation>
    </message>
    <message>
        <source>Model</source>
        <translation>Modelo</translation>
    </message>
    <message>
        <source>The model that enhances; the list shows those for the volume&apos;s modality</source>
        <translation>El modelo que mejora; la lista muestra los de la modalidad del volumen</translation>
    </message>
    <message>
        <source>Region:</source>
        <translation>Región:</translation>
    </message>
    <message>
        <source>Region</source>
        <translation>Región</translation>
    </message>
    <message>
        <source>An ROI, or a segmentation of which one segment counts: nothing outside of it is changed, and a small one takes less time</source>
        <translation>Una ROI, o una segmentación de la que cuenta un segmento: fuera de ella no cambia nada, y una pequeña tarda menos</translation>
    </message>
    <message>
        <source>Whole volume</source>
        <translation>Volumen entero</translation>
    </message>
    <message>
        <source>Put a box into the middle of the volume: drag its handles in the views to what shall be enhanced</source>
        <translation>Coloca una caja en el centro del volumen: arrastre sus controles en las vistas hasta lo que se debe mejorar</translation>
    </message>
    <message>
        <source>New box</source>
        <translation>Nueva caja</translation>
    </message>
    <message>
        <source>Segment of the region</source>
        <translation>Segmento de la región</translation>
    </message>
    <message>
        <source>The segment that is the region</source>
        <translation>El segmento que es la región</translation>
    </message>
    <message>
        <source>Look like:</source>
        <translation>Aspecto de:</translation>
    </message>
    <message>
        <source>Look like another scan</source>
        <translation>Aspecto de otra exploración</translation>
    </message>
    <message>
        <source>Another scan of the same contrast: its sharpness and noise are taken over. Usually not needed</source>
        <translation>Otra exploración del mismo contraste: se adoptan su nitidez y su ruido. Normalmente no hace falta</translation>
    </message>
    <message>
        <source>None</source>
        <translation>Ninguna</translation>
    </message>
    <message>
        <source>Also make:</source>
        <translation>Además:</translation>
    </message>
    <message>
        <source>&amp;Uncertainty map</source>
        <translation>Mapa de &amp;incertidumbre</translation>
    </message>
    <message>
        <source>Expected error of each voxel, in the volume&apos;s units. One sample needs no further run; more samples need one run each</source>
        <translation>Error esperado de cada vóxel, en las unidades del volumen. Una muestra no necesita otra ejecución; más muestras necesitan una cada una</translation>
    </message>
    <message>
        <source>Noise &amp;map</source>
        <translation>&amp;Mapa de ruido</translation>
    </message>
    <message>
        <source>The noise that was measured in the input: one standard deviation at each voxel, in the volume&apos;s units</source>
        <translation>El ruido que se midió en la entrada: una desviación estándar en cada vóxel, en las unidades del volumen</translation>
    </message>
    <message>
        <source>&amp;Segmentation</source>
        <translation>&amp;Segmentación</translation>
    </message>
    <message>
        <source>Labels of structures in the enhanced volume, with a table of their volumes</source>
        <translation>Etiquetas de las estructuras del volumen mejorado, con una tabla de sus volúmenes</translation>
    </message>
    <message>
        <source>Segment with:</source>
        <translation>Segmentar:</translation>
    </message>
    <message>
        <source>Segment with</source>
        <translation>Segmentar con</translation>
    </message>
    <message>
        <source>The segmentation model; the list shows those for the volume&apos;s modality</source>
        <translation>El modelo de segmentación; la lista muestra los de la modalidad del volumen</translation>
    </message>
    <message>
        <source>Shading:</source>
        <translation>Sombreado:</translation>
    </message>
    <message>
        <source>&amp;Correct it (N4), MR only</source>
        <translation>Corr&amp;egirlo (N4), solo RM</translation>
    </message>
    <message>
        <source>Removes slow changes of brightness (bias field) in any case; without it, where they are measured to be strong</source>
        <translation>Elimina los cambios lentos de brillo (campo de sesgo) en todo caso; sin marcarlo, donde se midan intensos</translation>
    </message>
    <message>
        <source>Device:</source>
        <translation>Dispositivo:</translation>
    </message>
    <message>
        <source>Device</source>
        <translation>Dispositivo</translation>
    </message>
    <message>
        <source>The device that the model runs on</source>
        <translation>El dispositivo en el que se ejecuta el modelo</translation>
    </message>
    <message>
        <source>What lies behind it, and what to do</source>
        <translation>Qué hay detrás, y qué hacer</translation>
    </message>
    <message>
        <source>Details</source>
        <translation>Detalles</translation>
    </message>
    <message>
        <source>Enhance only the slice that is shown, in place</source>
        <translation>Mejorar solo el corte que se muestra, en su sitio</translation>
    </message>
    <message>
        <source>&amp;Preview</source>
        <translation>&amp;Vista previa</translation>
    </message>
    <message>
        <source>Enhance the whole volume</source>
        <translation>Mejorar el volumen entero</translation>
    </message>
    <message>
        <source>&amp;Apply</source>
        <translation>&amp;Aplicar</translation>
    </message>
    <message>
        <source>Progress</source>
        <translation>Progreso</translation>
    </message>
    <message>
        <source>Stop; partial results are removed</source>
        <translation>Detener; los resultados parciales se eliminan</translation>
    </message>
    <message>
        <source>&amp;Cancel</source>
        <translation>&amp;Cancelar</translation>
    </message>
    <message>
        <source>Result</source>
        <translation>Resultado</translation>
    </message>
    <message>
        <source>Result:</source>
        <translation>Resultado:</translation>
    </message>
    <message>
        <source>An enhanced volume of the scene, to compare with its input</source>
        <translation>Un volumen mejorado de la escena, para compararlo con su entrada</translation>
    </message>
    <message>
        <source>None yet</source>
        <translation>Aún ninguno</translation>
    </message>
    <message>
        <source>Actions on the result</source>
        <translation>Acciones con el resultado</translation>
    </message>
    <message>
        <source>Rename, save, export or remove this result</source>
        <translation>Cambiar el nombre, guardar, exportar o quitar este resultado</translation>
    </message>
    <message>
        <source>All facts of this result</source>
        <translation>Todos los datos de este resultado</translation>
    </message>
    <message>
        <source>Compare:</source>
        <translation>Comparar:</translation>
    </message>
    <message>
        <source>Restore the views</source>
        <translation>Restaurar las vistas</translation>
    </message>
    <message>
        <source>O&amp;ff</source>
        <translation>&amp;No</translation>
    </message>
    <message>
        <source>Input and result in two linked views</source>
        <translation>Entrada y resultado en dos vistas vinculadas</translation>
    </message>
    <message>
        <source>Side &amp;by side</source>
        <translation>&amp;Lado a lado</translation>
    </message>
    <message>
        <source>The result over the input</source>
        <translation>El resultado sobre la entrada</translation>
    </message>
    <message>
        <source>Fa&amp;de</source>
        <translation>F&amp;undido</translation>
    </message>
    <message>
        <source>Show the input alone, without the correction (Ctrl+Shift+B)</source>
        <translation>Mostrar solo la entrada, sin la corrección (Ctrl+Shift+B)</translation>
    </message>
    <message>
        <source>Input</source>
        <translation>Entrada</translation>
    </message>
    <message>
        <source>Strength:</source>
        <translation>Grado:</translation>
    </message>
    <message>
        <source>Strength</source>
        <translation>Grado</translation>
    </message>
    <message>
        <source>Share of the correction that the enhanced volume has: 0 is the input, 1 the full result. Its voxels, uncertainty and difference change when the slider is released; nothing is run again</source>
        <translation>Parte de la corrección que tiene el volumen mejorado: 0 es la entrada, 1 el resultado completo. Sus vóxeles, su incertidumbre y su diferencia cambian al soltar el control; no se vuelve a ejecutar nada</translation>
    </message>
    <message>
        <source>Overlay:</source>
        <translation>Capa:</translation>
    </message>
    <message>
        <source>Enhanced minus input, in the volume&apos;s units: blue is lower, red is higher</source>
        <translation>Mejorado menos entrada, en las unidades del volumen: azul es menor, rojo es mayor</translation>
    </message>
    <message>
        <source>Diffe&amp;rence</source>
        <translation>&amp;Diferencia</translation>
    </message>
    <message>
        <source>Standard deviation of each voxel, in the volume&apos;s units</source>
        <translation>Desviación estándar de cada vóxel, en las unidades del volumen</translation>
    </message>
    <message>
        <source>U&amp;ncertainty</source>
        <translation>Incertidum&amp;bre</translation>
    </message>
    <message>
        <source>Show the segmentation</source>
        <translation>Mostrar la segmentación</translation>
    </message>
    <message>
        <source>Se&amp;gments</source>
        <translation>Segmen&amp;tos</translation>
    </message>
    <message>
        <source>Show the surfaces of the segments in the 3D view</source>
        <translation>Mostrar las superficies de los segmentos en la vista 3D</translation>
    </message>
    <message>
        <source>Show 3D</source>
        <translation>Ver en 3D</translation>
    </message>
    <message>
        <source>Show the volumes of the structures in Slicer&apos;s table view</source>
        <translation>Mostrar los volúmenes de las estructuras en la vista de tabla de Slicer</translation>
    </message>
    <message>
        <source>Table</source>
        <translation>Tabla</translation>
    </message>
    <message>
        <source>As a derived DICOM series in the study of its input, with segmentation, measurements and uncertainty if available; into Slicer&apos;s DICOM database or a folder</source>
        <translation>Como serie DICOM derivada en el estudio de su entrada, con segmentación, medidas e incertidumbre si las hay; a la base de datos DICOM de Slicer o a una carpeta</translation>
    </message>
    <message>
        <source>E&amp;xport to DICOM…</source>
        <translation>E&amp;xportar a DICOM…</translation>
    </message>
    <message>
        <source>Batch</source>
        <translation>Lote</translation>
    </message>
    <message>
        <source>All in:</source>
        <translation>Todos en:</translation>
    </message>
    <message>
        <source>Where the volumes come from</source>
        <translation>De dónde vienen los volúmenes</translation>
    </message>
    <message>
        <source>Volumes of the scene, files of a folder, or studies of Slicer&apos;s DICOM database; they are enhanced one after the other with the settings above</source>
        <translation>Volúmenes de la escena, archivos de una carpeta o estudios de la base de datos DICOM de Slicer; se mejoran uno tras otro con los ajustes de arriba</translation>
    </message>
    <message>
        <source>All in</source>
        <translation>Todos en</translation>
    </message>
    <message>
        <source>A patient, study or folder of the scene; its volumes are enhanced one after the other with the settings above</source>
        <translation>Un paciente, un estudio o una carpeta de la escena; sus volúmenes se mejoran uno tras otro con los ajustes de arriba</translation>
    </message>
    <message>
        <source>Folder:</source>
        <translation>Carpeta:</translation>
    </message>
    <message>
        <source>Folder of volumes</source>
        <translation>Carpeta de volúmenes</translation>
    </message>
    <message>
        <source>NIfTI, NRRD, MetaImage, .ucv and folders of DICOM, also in folders below</source>
        <translation>NIfTI, NRRD, MetaImage, .ucv y carpetas DICOM, también en subcarpetas</translation>
    </message>
    <message>
        <source>Choose a folder of volumes</source>
        <translation>Elegir una carpeta de volúmenes</translation>
    </message>
    <message>
        <source>Results:</source>
        <translation>Resultados:</translation>
    </message>
    <message>
        <source>Folder of the results</source>
        <translation>Carpeta de los resultados</translation>
    </message>
    <message>
        <source>Results lie here as the sources below their folder, with a table of them, batch.csv</source>
        <translation>Los resultados quedan aquí con la misma estructura que los originales en su carpeta, junto con una tabla, batch.csv</translation>
    </message>
    <message>
        <source>Choose the folder of the results</source>
        <translation>Elegir la carpeta de los resultados</translation>
    </message>
    <message>
        <source>Find a patient or study</source>
        <translation>Buscar un paciente o estudio</translation>
    </message>
    <message>
        <source>Modality of the series</source>
        <translation>Modalidad de las series</translation>
    </message>
    <message>
        <source>Only series of this modality are taken</source>
        <translation>Solo se toman las series de esta modalidad</translation>
    </message>
    <message>
        <source>Studies of the DICOM database</source>
        <translation>Estudios de la base de datos DICOM</translation>
    </message>
    <message>
        <source>Patient</source>
        <translation>Paciente</translation>
    </message>
    <message>
        <source>Study</source>
        <translation>Estudio</translation>
    </message>
    <message>
        <source>Enhance the volumes one after the other; if one fails, the others continue</source>
        <translation>Mejorar los volúmenes uno tras otro; si uno falla, los demás continúan</translation>
    </message>
    <message>
        <source>Enhance a&amp;ll</source>
        <translation>Me&amp;jorar todos</translation>
    </message>
    <message>
        <source>Log</source>
        <translation>Registro</translation>
    </message>
</context>
<context>
    <name>ExportDicom</name>
    <message>
        <source>Export to DICOM</source>
        <translation>Exportar a DICOM</translation>
    </message>
    <message>
        <source>Belongs to:</source>
        <translation>Pertenece a:</translation>
    </message>
    <message>
        <source>Belongs to</source>
        <translation>Pertenece a</translation>
    </message>
    <message>
        <source>A new study, or the study of a volume in the scene that was loaded from DICOM</source>
        <translation>Un estudio nuevo, o el estudio de un volumen de la escena que se cargó de DICOM</translation>
    </message>
    <message>
        <source>Patient ID:</source>
        <translation>ID del paciente:</translation>
    </message>
    <message>
        <source>Patient ID</source>
        <translation>ID del paciente</translation>
    </message>
    <message>
        <source>The patient&apos;s ID in your hospital or study; required</source>
        <translation>El ID del paciente en su hospital o estudio; obligatorio</translation>
    </message>
    <message>
        <source>Patient name:</source>
        <translation>Nombre del paciente:</translation>
    </message>
    <message>
        <source>Patient name</source>
        <translation>Nombre del paciente</translation>
    </message>
    <message>
        <source>As in DICOM, family name first: Doe^Jane</source>
        <translation>Como en DICOM, primero el apellido: Doe^Jane</translation>
    </message>
    <message>
        <source>Study:</source>
        <translation>Estudio:</translation>
    </message>
    <message>
        <source>Study</source>
        <translation>Estudio</translation>
    </message>
    <message>
        <source>Description of the new study</source>
        <translation>Descripción del estudio nuevo</translation>
    </message>
    <message>
        <source>Series:</source>
        <translation>Serie:</translation>
    </message>
    <message>
        <source>Series</source>
        <translation>Serie</translation>
    </message>
    <message>
        <source>Description of the new series</source>
        <translation>Descripción de la serie nueva</translation>
    </message>
    <message>
        <source>With:</source>
        <translation>Con:</translation>
    </message>
    <message>
        <source>Se&amp;gmentation</source>
        <translation>&amp;Segmentación</translation>
    </message>
    <message>
        <source>As DICOM SEG with its codes, and the table of volumes as a structured report</source>
        <translation>Como DICOM SEG con sus códigos, y la tabla de volúmenes como informe estructurado</translation>
    </message>
    <message>
        <source>&amp;Uncertainty map</source>
        <translation>Mapa de &amp;incertidumbre</translation>
    </message>
    <message>
        <source>As DICOM Parametric Map</source>
        <translation>Como mapa paramétrico DICOM</translation>
    </message>
    <message>
        <source>As:</source>
        <translation>Como:</translation>
    </message>
    <message>
        <source>One &amp;multi-frame file</source>
        <translation>Un archivo &amp;multifotograma</translation>
    </message>
    <message>
        <source>Enhanced CT, MR or PET: one file instead of one per slice; not every program can read it</source>
        <translation>TC, RM o PET «Enhanced» de DICOM: un archivo en lugar de uno por corte; no todos los programas pueden leerlo</translation>
    </message>
    <message>
        <source>&amp;De-identified</source>
        <translation>&amp;Desidentificado</translation>
    </message>
    <message>
        <source>Leaves out what identifies the patient. Text that is part of the image stays</source>
        <translation>Omite lo que identifica al paciente. El texto que forma parte de la imagen permanece</translation>
    </message>
    <message>
        <source>To:</source>
        <translation>A:</translation>
    </message>
    <message>
        <source>Slicer&apos;s DICOM data&amp;base</source>
        <translation>&amp;Base de datos DICOM de Slicer</translation>
    </message>
    <message>
        <source>Copies the files into the database that the module DICOM shows</source>
        <translation>Copia los archivos a la base de datos que muestra el módulo DICOM</translation>
    </message>
    <message>
        <source>A &amp;folder:</source>
        <translation>Una &amp;carpeta:</translation>
    </message>
    <message>
        <source>Files for other programs, in a folder of their own</source>
        <translation>Archivos para otros programas, en una carpeta propia</translation>
    </message>
    <message>
        <source>A new or empty folder</source>
        <translation>Una carpeta nueva o vacía</translation>
    </message>
    <message>
        <source>Choose where to create the new folder</source>
        <translation>Elegir dónde crear la carpeta nueva</translation>
    </message>
    <message>
        <source>Progress</source>
        <translation>Progreso</translation>
    </message>
    <message>
        <source>Cancel</source>
        <translation>Cancelar</translation>
    </message>
    <message>
        <source>Open f&amp;older</source>
        <translation>Abrir c&amp;arpeta</translation>
    </message>
    <message>
        <source>Open module DI&amp;COM</source>
        <translation>Abrir módu&amp;lo DICOM</translation>
    </message>
    <message>
        <source>Slicer&apos;s own module: look at the new series, load it, send it</source>
        <translation>El módulo de Slicer: ver la serie nueva, cargarla, enviarla</translation>
    </message>
    <message>
        <source>Close</source>
        <translation>Cerrar</translation>
    </message>
    <message>
        <source>&amp;Export</source>
        <translation>&amp;Exportar</translation>
    </message>
</context>
<context>
    <name>FirstUse</name>
    <message>
        <source>&lt;b&gt;One step before the first use&lt;/b&gt;</source>
        <translation>&lt;b&gt;Un paso antes del primer uso&lt;/b&gt;</translation>
    </message>
    <message>
        <source>Packages that are missing</source>
        <translation>Paquetes que faltan</translation>
    </message>
    <message>
        <source>Package</source>
        <translation>Paquete</translation>
    </message>
    <message>
        <source>What it is for</source>
        <translation>Para qué es</translation>
    </message>
    <message>
        <source>Download</source>
        <translation>Descarga</translation>
    </message>
    <message>
        <source>PyTorch for:</source>
        <translation>PyTorch para:</translation>
    </message>
    <message>
        <source>PyTorch for</source>
        <translation>PyTorch para</translation>
    </message>
    <message>
        <source>PyTorch does the computing; the version for the CPU alone is a far smaller download</source>
        <translation>PyTorch hace los cálculos; la versión solo para la CPU es una descarga mucho menor</translation>
    </message>
    <message>
        <source>&amp;Install…</source>
        <translation>&amp;Instalar…</translation>
    </message>
    <message>
        <source>Asks first, then downloads and installs in the background</source>
        <translation>Primero pregunta; después descarga e instala en segundo plano</translation>
    </message>
    <message>
        <source>Install from a folder of &amp;wheels…</source>
        <translation>Instalar desde carpeta de &amp;wheels…</translation>
    </message>
    <message>
        <source>For computers without access to the internet: install from files that were downloaded elsewhere</source>
        <translation>Para equipos sin acceso a internet: instalar desde archivos descargados en otro sitio</translation>
    </message>
    <message>
        <source>Progress</source>
        <translation>Progreso</translation>
    </message>
    <message>
        <source>Log</source>
        <translation>Registro</translation>
    </message>
    <message>
        <source>&amp;Check this computer</source>
        <translation>&amp;Comprobar este equipo</translation>
    </message>
    <message>
        <source>Show device, memory, disk space and packages</source>
        <translation>Mostrar dispositivo, memoria, espacio en disco y paquetes</translation>
    </message>
</context>
<context>
    <name>Jobs</name>
    <message>
        <source>No jobs yet. Loading, enhancing, compressing and training are listed here with their logs, while they run and afterwards, also after Slicer was restarted.</source>
        <translation>Aún no hay trabajos. Las cargas, mejoras, compresiones y entrenamientos aparecen aquí con sus registros, mientras se ejecutan y después, también tras reiniciar Slicer.</translation>
    </message>
    <message>
        <source>Jobs</source>
        <translation>Trabajos</translation>
    </message>
    <message>
        <source>Job</source>
        <translation>Trabajo</translation>
    </message>
    <message>
        <source>State</source>
        <translation>Estado</translation>
    </message>
    <message>
        <source>Started</source>
        <translation>Inicio</translation>
    </message>
    <message>
        <source>Took</source>
        <translation>Duración</translation>
    </message>
    <message>
        <source>&amp;Cancel job</source>
        <translation>&amp;Cancelar trabajo</translation>
    </message>
    <message>
        <source>Stop the selected job; partial files are removed</source>
        <translation>Detener el trabajo seleccionado; los archivos parciales se eliminan</translation>
    </message>
    <message>
        <source>Open &amp;report</source>
        <translation>&amp;Abrir informe</translation>
    </message>
    <message>
        <source>Open the report of the selected job</source>
        <translation>Abrir el informe del trabajo seleccionado</translation>
    </message>
    <message>
        <source>Show in &amp;folder</source>
        <translation>&amp;Ver carpeta</translation>
    </message>
    <message>
        <source>Open the folder with the files of the selected job</source>
        <translation>Abrir la carpeta con los archivos del trabajo seleccionado</translation>
    </message>
    <message>
        <source>C&amp;lear</source>
        <translation>&amp;Limpiar</translation>
    </message>
    <message>
        <source>Remove finished jobs from the list</source>
        <translation>Quitar de la lista los trabajos terminados</translation>
    </message>
    <message>
        <source>Selected job</source>
        <translation>Trabajo seleccionado</translation>
    </message>
    <message>
        <source>Progress</source>
        <translation>Progreso</translation>
    </message>
    <message>
        <source>Log</source>
        <translation>Registro</translation>
    </message>
    <message>
        <source>The log is empty.</source>
        <translation>El registro está vacío.</translation>
    </message>
    <message>
        <source>Details for an error report</source>
        <translation>Detalles para notificar un error</translation>
    </message>
    <message>
        <source>Details of the error</source>
        <translation>Detalles del error</translation>
    </message>
    <message>
        <source>This computer</source>
        <translation>Este equipo</translation>
    </message>
    <message>
        <source>Check this computer</source>
        <translation>Comprobar este equipo</translation>
    </message>
    <message>
        <source>Show device, memory, disk space and packages</source>
        <translation>Mostrar dispositivo, memoria, espacio en disco y paquetes</translation>
    </message>
</context>
<context>
    <name>Load</name>
    <message>
        <source>Volume:</source>
        <translation>Volumen:</translation>
    </message>
    <message>
        <source>Volume</source>
        <translation>Volumen</translation>
    </message>
    <message>
        <source>The volume, or sequence of volumes, that all pages work on</source>
        <translation>El volumen, o la secuencia de volúmenes, con que trabajan todas las páginas</translation>
    </message>
    <message>
        <source>Choose a volume of the scene</source>
        <translation>Elija un volumen de la escena</translation>
    </message>
    <message>
        <source>Load a volume from a file: NIfTI, NRRD, MetaImage, a DICOM image, a zip or DICOMDIR of DICOM images, or a compressed .ucv file</source>
        <translation>Cargar un volumen de un archivo: NIfTI, NRRD, MetaImage, una imagen DICOM, un zip o DICOMDIR de imágenes DICOM, o un archivo comprimido .ucv</translation>
    </message>
    <message>
        <source>Open &amp;file…</source>
        <translation>&amp;Archivo…</translation>
    </message>
    <message>
        <source>Load a DICOM series from a folder; several series are listed, gaps and uneven spacing are reported</source>
        <translation>Cargar una serie DICOM de una carpeta; si hay varias se enumeran, y se avisa de huecos y espaciado irregular</translation>
    </message>
    <message>
        <source>&amp;DICOM folder…</source>
        <translation>Carpeta &amp;DICOM…</translation>
    </message>
    <message>
        <source>Example volumes</source>
        <translation>Volúmenes de ejemplo</translation>
    </message>
    <message>
        <source>&amp;Sample data</source>
        <translation>&amp;Ejemplos</translation>
    </message>
    <message>
        <source>Progress</source>
        <translation>Progreso</translation>
    </message>
    <message>
        <source>Cancel</source>
        <translation>Cancelar</translation>
    </message>
    <message>
        <source>Several series were found</source>
        <translation>Se encontraron varias series</translation>
    </message>
    <message>
        <source>Choose the one to load:</source>
        <translation>Elija la que se cargará:</translation>
    </message>
    <message>
        <source>Series of the folder</source>
        <translation>Series de la carpeta</translation>
    </message>
    <message>
        <source>Type</source>
        <translation>Tipo</translation>
    </message>
    <message>
        <source>Description</source>
        <translation>Descripción</translation>
    </message>
    <message>
        <source>Size</source>
        <translation>Tamaño</translation>
    </message>
    <message>
        <source>Date</source>
        <translation>Fecha</translation>
    </message>
    <message>
        <source>Not now</source>
        <translation>Ahora no</translation>
    </message>
    <message>
        <source>&amp;Load this series</source>
        <translation>&amp;Cargar esta serie</translation>
    </message>
    <message>
        <source>Load &amp;resampled</source>
        <translation>Cargar &amp;remuestreado</translation>
    </message>
    <message>
        <source>No volume is selected. Choose one above, open a file or a DICOM folder, or load a sample. This page then describes the volume and warns of problems for later steps.</source>
        <translation>No hay ningún volumen seleccionado. Elija uno arriba, abra un archivo o una carpeta DICOM, o cargue un ejemplo. Esta página describe después el volumen y avisa de problemas para los pasos siguientes.</translation>
    </message>
    <message>
        <source>About this volume</source>
        <translation>Sobre este volumen</translation>
    </message>
    <message>
        <source>Modality:</source>
        <translation>Modalidad:</translation>
    </message>
    <message>
        <source>Modality</source>
        <translation>Modalidad</translation>
    </message>
    <message>
        <source>Correct the modality here if it was detected wrongly</source>
        <translation>Corrija aquí la modalidad si se detectó mal</translation>
    </message>
    <message>
        <source>Size:</source>
        <translation>Tamaño:</translation>
    </message>
    <message>
        <source>Extent:</source>
        <translation>Extensión:</translation>
    </message>
    <message>
        <source>Spacing:</source>
        <translation>Espaciado:</translation>
    </message>
    <message>
        <source>Orientation:</source>
        <translation>Orientación:</translation>
    </message>
    <message>
        <source>Values:</source>
        <translation>Valores:</translation>
    </message>
    <message>
        <source>Memory:</source>
        <translation>Memoria:</translation>
    </message>
    <message>
        <source>&amp;Enhance it</source>
        <translation>&amp;Mejorar</translation>
    </message>
    <message>
        <source>&amp;Compress it</source>
        <translation>Com&amp;primir</translation>
    </message>
    <message>
        <source>As a derived DICOM series, into Slicer&apos;s DICOM database or a folder</source>
        <translation>Como serie DICOM derivada, a la base de datos DICOM de Slicer o a una carpeta</translation>
    </message>
    <message>
        <source>E&amp;xport to DICOM…</source>
        <translation>E&amp;xportar a DICOM…</translation>
    </message>
</context>
<context>
    <name>MedEnhance</name>
    <message>
        <source>MedEnhance</source>
        <translation>MedEnhance</translation>
    </message>
    <message>
        <source>Enhances, segments and compresses volumes. Pick a volume on the Load page, then choose what to do with it. Research software, not a medical device.</source>
        <translation>Mejora, segmenta y comprime volúmenes. Elija un volumen en la página Cargar y después qué hacer con él. Software de investigación: no es un producto sanitario (dispositivo médico).</translation>
    </message>
    <message>
        <source>User guide</source>
        <translation>Guía del usuario</translation>
    </message>
    <message>
        <source>Reimplements published methods; the model cards list data and licenses.</source>
        <translation>Reimplementa métodos publicados; las fichas de los modelos indican los datos y las licencias.</translation>
    </message>
    <message>
        <source>Load</source>
        <translation>Cargar</translation>
    </message>
    <message>
        <source>Enhance</source>
        <translation>Mejorar</translation>
    </message>
    <message>
        <source>Compress</source>
        <translation>Comprimir</translation>
    </message>
    <message>
        <source>Distill</source>
        <translation>Destilar</translation>
    </message>
    <message>
        <source>Jobs</source>
        <translation>Trabajos</translation>
    </message>
    <message>
        <source>Models</source>
        <translation>Modelos</translation>
    </message>
    <message>
        <source>Enhance…</source>
        <translation>Mejorar…</translation>
    </message>
    <message>
        <source>Compress…</source>
        <translation>Comprimir…</translation>
    </message>
    <message>
        <source>Enhance all volumes…</source>
        <translation>Mejorar todos los volúmenes…</translation>
    </message>
    <message>
        <source>MedEnhance compressed volume</source>
        <translation>Volumen comprimido de MedEnhance</translation>
    </message>
    <message>
        <source>Details</source>
        <translation>Detalles</translation>
    </message>
    <message>
        <source>Hide this message</source>
        <translation>Ocultar este mensaje</translation>
    </message>
    <message>
        <source>Details of the message</source>
        <translation>Detalles del mensaje</translation>
    </message>
    <message>
        <source>Pages</source>
        <translation>Páginas</translation>
    </message>
    <message>
        <source>Parameter set</source>
        <translation>Conjunto de parámetros</translation>
    </message>
    <message>
        <source>Saved in the scene as:</source>
        <translation>Guardado en la escena como:</translation>
    </message>
    <message>
        <source>Saved in the scene as</source>
        <translation>Guardado en la escena como</translation>
    </message>
    <message>
        <source>The settings of all pages, saved with the scene. Create a second set to keep two configurations side by side.</source>
        <translation>Los ajustes de todas las páginas, guardados con la escena. Cree un segundo conjunto para mantener dos configuraciones en paralelo.</translation>
    </message>
    <message>
        <source>Research use only: not a medical device, not for diagnosis. Every result is marked as derived.</source>
        <translation>Solo para investigación: no es un producto sanitario (dispositivo médico) y no debe usarse para el diagnóstico. Todos los resultados se marcan como derivados.</translation>
    </message>
</context>
<context>
    <name>MedEnhancePanels.arguments</name>
    <message>
        <source>{name} is {value!r}, not a node</source>
        <translation>{name} es {value!r}, que no es un nodo</translation>
    </message>
    <message>
        <source>Give a node, for example slicer.util.getNode(&quot;MRHead&quot;).</source>
        <translation>Indique un nodo, por ejemplo slicer.util.getNode(&quot;MRHead&quot;).</translation>
    </message>
    <message>
        <source>{name} is {value!r}, not a path</source>
        <translation>{name} es {value!r}, que no es una ruta</translation>
    </message>
    <message>
        <source>Give the path of a file.</source>
        <translation>Indique la ruta de un archivo.</translation>
    </message>
    <message>
        <source>Give a whole number.</source>
        <translation>Indique un número entero.</translation>
    </message>
    <message>
        <source>Give a pair (start, stop) or None for each axis, slices first: ((40, 60), None, None).</source>
        <translation>Indique un par (inicio, fin) o None para cada eje, primero los cortes: ((40, 60), None, None).</translation>
    </message>
    <message>
        <source>{name} is {value!r}</source>
        <translation>{name} es {value!r}</translation>
    </message>
</context>
<context>
    <name>MedEnhancePanels.dependencies</name>
    <message>
        <source>{size:.1f} GB</source>
        <translation>{size:.1f} GB</translation>
    </message>
    <message>
        <source>{size:.0f} MB</source>
        <translation>{size:.0f} MB</translation>
    </message>
    <message>
        <source>pip finished, but these packages are still missing: {names}</source>
        <translation>pip terminó, pero siguen faltando estos paquetes: {names}</translation>
    </message>
    <message>
        <source>Restart Slicer, then check again.</source>
        <translation>Reinicie Slicer y vuelva a comprobarlo.</translation>
    </message>
    <message>
        <source>The packages could not be installed</source>
        <translation>No se pudieron instalar los paquetes</translation>
    </message>
    <message>
        <source>See the end of the log. Slicer itself was not changed; you can try again.</source>
        <translation>Vea el final del registro. Slicer no ha cambiado; puede intentarlo de nuevo.</translation>
    </message>
    <message>
        <source>The disk is full</source>
        <translation>El disco está lleno</translation>
    </message>
    <message>
        <source>Free some space on the disk that holds Slicer, then try again.</source>
        <translation>Libere espacio en el disco donde está Slicer e inténtelo de nuevo.</translation>
    </message>
    <message>
        <source>Slicer&apos;s folder is not writable</source>
        <translation>No se puede escribir en la carpeta de Slicer</translation>
    </message>
    <message>
        <source>Close other Slicer windows, or start Slicer as the user who installed it.</source>
        <translation>Cierre las demás ventanas de Slicer, o inicie Slicer con el usuario que lo instaló.</translation>
    </message>
    <message>
        <source>Another extension requires an incompatible version of a package</source>
        <translation>Otra extensión requiere una versión incompatible de un paquete</translation>
    </message>
    <message>
        <source>Nothing was changed. The log names the package: update or remove that extension, then try again.</source>
        <translation>No se ha cambiado nada. El registro indica el paquete: actualice o quite esa extensión e inténtelo de nuevo.</translation>
    </message>
    <message>
        <source>A package is missing in the folder {folder}</source>
        <translation>Falta un paquete en la carpeta {folder}</translation>
    </message>
    <message>
        <source>On a computer with internet and the same system, run: pip download -r requirements.txt -d wheels --python-version {version} --only-binary=:all: — then copy the folder here.</source>
        <translation>En un equipo con internet y el mismo sistema, ejecute: pip download -r requirements.txt -d wheels --python-version {version} --only-binary=:all: — y después copie la carpeta aquí.</translation>
    </message>
    <message>
        <source>The package server cannot be reached</source>
        <translation>No se puede acceder al servidor de paquetes</translation>
    </message>
    <message>
        <source>Behind a firewall, ask for access to pypi.org and files.pythonhosted.org, or set the environment variable HTTPS_PROXY before starting Slicer; or use “Install from a folder of wheels…”.</source>
        <translation>Detrás de un cortafuegos, pida acceso a pypi.org y files.pythonhosted.org, o defina la variable de entorno HTTPS_PROXY antes de iniciar Slicer; o use «Instalar desde carpeta de wheels…».</translation>
    </message>
    <message>
        <source>Computes on: {name} – {reason}</source>
        <translation>Calcula en: {name} – {reason}</translation>
    </message>
    <message>
        <source>, {free} of {total} free</source>
        <translation>, {free} de {total} libres</translation>
    </message>
    <message>
        <source>Memory</source>
        <translation>Memoria</translation>
    </message>
    <message>
        <source>Disk</source>
        <translation>Disco</translation>
    </message>
    <message>
        <source>{name}: {free} of {total} free</source>
        <translation>{name}: {free} de {total} libres</translation>
    </message>
    <message>
        <source>Missing packages: {names}</source>
        <translation>Paquetes que faltan: {names}</translation>
    </message>
    <message>
        <source>unknown</source>
        <translation>desconocido</translation>
    </message>
</context>
<context>
    <name>MedEnhancePanels.errors</name>
    <message>
        <source>Cancelled.</source>
        <translation>Cancelado.</translation>
    </message>
    <message>
        <source>Install it with the button on top of the module MedEnhance.</source>
        <translation>Instálelo con el botón de la parte superior del módulo MedEnhance.</translation>
    </message>
    <message>
        <source>The job failed</source>
        <translation>El trabajo ha fallado</translation>
    </message>
    <message>
        <source>This is an error in MedEnhance: please report it with the details.</source>
        <translation>Es un error de MedEnhance: notifíquelo con los detalles.</translation>
    </message>
    <message>
        <source>Free some space on that disk, then try again.</source>
        <translation>Libere espacio en ese disco e inténtelo de nuevo.</translation>
    </message>
    <message>
        <source>It was deleted or moved: try again.</source>
        <translation>Se eliminó o se movió: inténtelo de nuevo.</translation>
    </message>
    <message>
        <source>Check that you have access to it, then try again.</source>
        <translation>Compruebe que tiene acceso e inténtelo de nuevo.</translation>
    </message>
</context>
<context>
    <name>MedEnhancePanels.job</name>
    <message>
        <source>waiting</source>
        <translation>en espera</translation>
    </message>
    <message>
        <source>{stage}, about {time} left</source>
        <translation>{stage}, faltan unos {time}</translation>
    </message>
    <message>
        <source>{seconds} s</source>
        <translation>{seconds} s</translation>
    </message>
    <message>
        <source>{minutes} min {seconds} s</source>
        <translation>{minutes} min {seconds} s</translation>
    </message>
    <message>
        <source>{hours} h {minutes} min</source>
        <translation>{hours} h {minutes} min</translation>
    </message>
</context>
<context>
    <name>MedEnhancePanels.logic</name>
    <message>
        <source>Inspect a file</source>
        <translation>Examinar un archivo</translation>
    </message>
    <message>
        <source>Inspect {name}</source>
        <translation>Examinar {name}</translation>
    </message>
    <message>
        <source>Train a model</source>
        <translation>Entrenar un modelo</translation>
    </message>
    <message>
        <source>Check this computer</source>
        <translation>Comprobar este equipo</translation>
    </message>
</context>
<context>
    <name>MedEnhancePanels.runner</name>
    <message>
        <source>sending the volume</source>
        <translation>enviando el volumen</translation>
    </message>
    <message>
        <source>cancelling</source>
        <translation>cancelando</translation>
    </message>
    <message>
        <source>loading the result into the scene</source>
        <translation>cargando el resultado en la escena</translation>
    </message>
    <message>
        <source>starting</source>
        <translation>iniciando</translation>
    </message>
    <message>
        <source>the job did not stop in time: its worker was terminated</source>
        <translation>el trabajo no se detuvo a tiempo: se terminó su proceso</translation>
    </message>
    <message>
        <source>{title}: a value is not valid: {why}</source>
        <translation>{title}: un valor no es válido: {why}</translation>
    </message>
    <message>
        <source>Use plain text and finite numbers.</source>
        <translation>Use texto sin formato y números finitos.</translation>
    </message>
    <message>
        <source>crashed</source>
        <translation>se cerró por un fallo</translation>
    </message>
    <message>
        <source>ended with status {code}</source>
        <translation>terminó con el estado {code}</translation>
    </message>
    <message>
        <source>The worker process {how}</source>
        <translation>El proceso de cálculo {how}</translation>
    </message>
    <message>
        <source>Your data are unchanged. Try again; close other programs if memory is low.</source>
        <translation>Sus datos no han cambiado. Inténtelo de nuevo; cierre otros programas si queda poca memoria.</translation>
    </message>
</context>
<context>
    <name>Models</name>
    <message>
        <source>The models on this computer</source>
        <translation>Los modelos de este equipo</translation>
    </message>
    <message>
        <source>The models on this computer: those that came with MedEnhance, and those you imported</source>
        <translation>Los modelos de este equipo: los que vinieron con MedEnhance y los que usted importó</translation>
    </message>
    <message>
        <source>Name</source>
        <translation>Nombre</translation>
    </message>
    <message>
        <source>For</source>
        <translation>Para</translation>
    </message>
    <message>
        <source>Origin</source>
        <translation>Origen</translation>
    </message>
    <message>
        <source>License</source>
        <translation>Licencia</translation>
    </message>
    <message>
        <source>&amp;Import</source>
        <translation>&amp;Importar</translation>
    </message>
    <message>
        <source>Import a model from a folder or a zip file; no code in it is executed</source>
        <translation>Importar un modelo desde una carpeta o un archivo zip; no se ejecuta ningún código que contenga</translation>
    </message>
    <message>
        <source>&amp;Verify</source>
        <translation>&amp;Verificar</translation>
    </message>
    <message>
        <source>Check all model files against their SHA-256</source>
        <translation>Comprobar todos los archivos de los modelos con su SHA-256</translation>
    </message>
    <message>
        <source>&amp;Remove…</source>
        <translation>&amp;Quitar…</translation>
    </message>
    <message>
        <source>Delete the selected model from this computer; only imported models can be deleted</source>
        <translation>Eliminar de este equipo el modelo seleccionado; solo se pueden eliminar los importados</translation>
    </message>
    <message>
        <source>Refresh</source>
        <translation>Actualizar</translation>
    </message>
    <message>
        <source>Read the list again</source>
        <translation>Leer la lista de nuevo</translation>
    </message>
    <message>
        <source>Progress</source>
        <translation>Progreso</translation>
    </message>
    <message>
        <source>Model card</source>
        <translation>Ficha del modelo</translation>
    </message>
    <message>
        <source>Card of the model</source>
        <translation>Ficha del modelo elegido</translation>
    </message>
</context>
<context>
    <name>nodes.bridge</name>
    <message>
        <source>The result&apos;s node was removed before it was complete</source>
        <translation>El nodo del resultado se eliminó antes de que estuviera completo</translation>
    </message>
    <message>
        <source>No volume is chosen</source>
        <translation>No hay ningún volumen elegido</translation>
    </message>
    <message>
        <source>Choose one, or load one first.</source>
        <translation>Elija uno, o cargue uno primero.</translation>
    </message>
    <message>
        <source>{name} has no frames</source>
        <translation>{name} no tiene fotogramas</translation>
    </message>
    <message>
        <source>Load it again.</source>
        <translation>Cárguelo de nuevo.</translation>
    </message>
    <message>
        <source>{name} does not hold scalar volumes</source>
        <translation>{name} no contiene volúmenes escalares</translation>
    </message>
    <message>
        <source>Choose a volume, or a sequence of volumes.</source>
        <translation>Elija un volumen o una secuencia de volúmenes.</translation>
    </message>
    <message>
        <source>{name} has no voxels</source>
        <translation>{name} no tiene vóxeles</translation>
    </message>
    <message>
        <source>Load it again, or choose another.</source>
        <translation>Cárguelo de nuevo, o elija otro.</translation>
    </message>
    <message>
        <source>{name} is a color volume</source>
        <translation>{name} es un volumen en color</translation>
    </message>
    <message>
        <source>Convert it to grayscale first (module Vector to Scalar Volume).</source>
        <translation>Conviértalo primero a escala de grises (módulo Volumen vectorial a escalar, Vector to Scalar Volume).</translation>
    </message>
    <message>
        <source>{name} is a preview of a compressed file</source>
        <translation>{name} es una vista previa de un archivo comprimido</translation>
    </message>
    <message>
        <source>Wait until it is complete, or open the file again.</source>
        <translation>Espere a que esté completo, o abra el archivo de nuevo.</translation>
    </message>
    <message>
        <source>{name} is a label map, not an image</source>
        <translation>{name} es un mapa de etiquetas, no una imagen</translation>
    </message>
    <message>
        <source>Choose the image that it belongs to.</source>
        <translation>Elija la imagen a la que pertenece.</translation>
    </message>
    <message>
        <source>{name}: the position of frame {number} differs from the first frame</source>
        <translation>{name}: la posición del fotograma {number} es distinta de la del primero</translation>
    </message>
    <message>
        <source>Resample its frames to one grid first.</source>
        <translation>Remuestree primero sus fotogramas en una misma cuadrícula.</translation>
    </message>
    <message>
        <source>Choose another output, or “Create new volume”.</source>
        <translation>Elija otra salida, o «Crear un volumen nuevo».</translation>
    </message>
    <message>
        <source>{name} is for labels or colors and cannot hold the result</source>
        <translation>{name} es para etiquetas o colores y no puede contener el resultado</translation>
    </message>
    <message>
        <source>The output is the input itself</source>
        <translation>La salida es la propia entrada</translation>
    </message>
    <message>
        <source>The output is the guide</source>
        <translation>La salida es la guía</translation>
    </message>
    <message>
        <source>The output is the scan that it is to look like</source>
        <translation>La salida es la exploración cuyo aspecto se quiere</translation>
    </message>
    <message>
        <source>The result of a sequence is a new sequence</source>
        <translation>El resultado de una secuencia es una secuencia nueva</translation>
    </message>
    <message>
        <source>Choose “Create new volume” as output.</source>
        <translation>Elija «Crear un volumen nuevo» como salida.</translation>
    </message>
</context>
<context>
    <name>nodes.card</name>
    <message>
        <source>CT</source>
        <translation>TC</translation>
    </message>
    <message>
        <source>MR</source>
        <translation>RM</translation>
    </message>
    <message>
        <source>PET</source>
        <translation>PET</translation>
    </message>
    <message>
        <source>Electron microscopy</source>
        <translation>Microscopía electrónica</translation>
    </message>
    <message>
        <source>Other or unknown</source>
        <translation>Otra o desconocida</translation>
    </message>
    <message>
        <source>A preview of a compressed file: most slices are not loaded yet</source>
        <translation>Vista previa de un archivo comprimido: la mayoría de los cortes aún no se ha cargado</translation>
    </message>
    <message>
        <source>Wait until it is complete.</source>
        <translation>Espere a que esté completo.</translation>
    </message>
    <message>
        <source>A color image: {count} values per voxel</source>
        <translation>Imagen en color: {count} valores por vóxel</translation>
    </message>
    <message>
        <source>Convert it to grayscale first, with the module Vector to Scalar Volume.</source>
        <translation>Conviértala primero a escala de grises, con el módulo Volumen vectorial a escalar (Vector to Scalar Volume).</translation>
    </message>
    <message>
        <source>A label map, not an image</source>
        <translation>Un mapa de etiquetas, no una imagen</translation>
    </message>
    <message>
        <source>Choose the image that it belongs to.</source>
        <translation>Elija la imagen a la que pertenece.</translation>
    </message>
    <message>
        <source>All voxels have the same value, {value:g}</source>
        <translation>Todos los vóxeles tienen el mismo valor, {value:g}</translation>
    </message>
    <message>
        <source>Check that the right file was loaded.</source>
        <translation>Compruebe que se cargó el archivo correcto.</translation>
    </message>
    <message>
        <source>One slice only</source>
        <translation>Un solo corte</translation>
    </message>
    <message>
        <source>Methods that use neighboring slices cannot work on it.</source>
        <translation>Los métodos que usan los cortes vecinos no pueden trabajar con él.</translation>
    </message>
    <message>
        <source>Thick slices: {ratio:.1f} times the size of a pixel</source>
        <translation>Cortes gruesos: {ratio:.1f} veces el tamaño de un píxel</translation>
    </message>
    <message>
        <source>It is processed slice by slice; details between slices cannot be restored.</source>
        <translation>Se procesa corte por corte; los detalles entre cortes no se pueden recuperar.</translation>
    </message>
    <message>
        <source>Voxels smaller than 1 µm: microscopy, or wrong spacing</source>
        <translation>Vóxeles de menos de 1 µm: microscopía, o espaciado erróneo</translation>
    </message>
    <message>
        <source>If it is an image of a patient, correct the spacing in the module Volumes.</source>
        <translation>Si es la imagen de un paciente, corrija el espaciado en el módulo Volúmenes (Volumes).</translation>
    </message>
    <message>
        <source>A sheared grid, for example from a tilted gantry</source>
        <translation>Cuadrícula no ortogonal, por ejemplo por un gantry inclinado</translation>
    </message>
    <message>
        <source>Open its DICOM folder here to have it straightened, or resample it with the module Resample Volume.</source>
        <translation>Abra aquí su carpeta DICOM para enderezarla, o remuestréela con el módulo Remuestrear volumen (Resample Volume).</translation>
    </message>
    <message>
        <source>Oblique: {angle:.1f}° off the patient&apos;s axes</source>
        <translation>Oblicuo: {angle:.1f}° respecto a los ejes del paciente</translation>
    </message>
    <message>
        <source>Its geometry is kept; to see the original slices, rotate the views to the volume plane.</source>
        <translation>Se conserva su geometría; para ver los cortes originales, gire las vistas al plano del volumen.</translation>
    </message>
    <message>
        <source>Left-handed axes: the slices are in reverse order</source>
        <translation>Ejes levógiros: los cortes están en orden inverso</translation>
    </message>
    <message>
        <source>Its geometry is kept; other programs may show it mirrored.</source>
        <translation>Se conserva su geometría; otros programas pueden mostrarlo reflejado.</translation>
    </message>
    <message>
        <source>Made from {files} DICOM files, but it has {slices} slices</source>
        <translation>Procede de {files} archivos DICOM, pero tiene {slices} cortes</translation>
    </message>
    <message>
        <source>Slices may be missing: open the DICOM folder here to check it.</source>
        <translation>Pueden faltar cortes: abra aquí la carpeta DICOM para comprobarlo.</translation>
    </message>
    <message>
        <source>Resampled</source>
        <translation>Remuestreado</translation>
    </message>
    <message>
        <source>{what}. Values between the original slices are interpolated: measure with care.</source>
        <translation>{what}. Los valores entre los cortes originales están interpolados: mida con precaución.</translation>
    </message>
    <message>
        <source>Derived, by {model}</source>
        <translation>Derivado, por {model}</translation>
    </message>
    <message>
        <source>Derived: {what}</source>
        <translation>Derivado: {what}</translation>
    </message>
    <message>
        <source>Derived, not an original</source>
        <translation>Derivado, no es un original</translation>
    </message>
    <message>
        <source>To enhance or to measure, use the original if available.</source>
        <translation>Para mejorar o medir, use el original si está disponible.</translation>
    </message>
    <message>
        <source>The file says {stated}, but {chosen} is selected</source>
        <translation>El archivo indica {stated}, pero está seleccionada {chosen}</translation>
    </message>
    <message>
        <source>Correct the modality above if it is wrong.</source>
        <translation>Corrija arriba la modalidad si es errónea.</translation>
    </message>
    <message>
        <source>The modality is {modality}, but the values look like CT</source>
        <translation>La modalidad es {modality}, pero los valores parecen de TC</translation>
    </message>
    <message>
        <source>Correct the modality above: models would misinterpret the values.</source>
        <translation>Corrija arriba la modalidad: los modelos interpretarían mal los valores.</translation>
    </message>
    <message>
        <source>The modality is CT, but no value is below 0, as fat and air are in HU</source>
        <translation>La modalidad es TC, pero ningún valor es menor que 0, como los de la grasa y el aire en UH</translation>
    </message>
    <message>
        <source>Correct the modality above, or load the volume with its original values.</source>
        <translation>Corrija arriba la modalidad, o cargue el volumen con sus valores originales.</translation>
    </message>
    <message>
        <source>Unevenly spaced or missing slices, corrected by Slicer with a transform</source>
        <translation>Cortes que faltan o con espaciado irregular, corregidos por Slicer con una transformada</translation>
    </message>
    <message>
        <source>Open its DICOM folder here to see what is missing and to resample it, or harden “{name}” in the module Transforms.</source>
        <translation>Abra aquí su carpeta DICOM para ver qué falta y remuestrearla, o endurezca (harden) «{name}» en el módulo Transformadas (Transforms).</translation>
    </message>
    <message>
        <source>Under the non-linear transform “{name}”</source>
        <translation>Bajo la transformada no lineal «{name}»</translation>
    </message>
    <message>
        <source>Results get the same transform; to process what you see, harden it first.</source>
        <translation>Los resultados reciben la misma transformada; para procesar lo que ve, endurézcala (harden) primero.</translation>
    </message>
    <message>
        <source>Under the transform “{name}”</source>
        <translation>Bajo la transformada «{name}»</translation>
    </message>
    <message>
        <source>The stored voxels are processed; results get the same transform.</source>
        <translation>Se procesan los vóxeles guardados; los resultados reciben la misma transformada.</translation>
    </message>
    <message>
        <source>The modality of the volume is not known</source>
        <translation>No se conoce la modalidad del volumen</translation>
    </message>
    <message>
        <source>Choose the modality above to find suitable models.</source>
        <translation>Elija arriba la modalidad para encontrar modelos adecuados.</translation>
    </message>
    <message>
        <source>No installed model enhances {modality}</source>
        <translation>Ningún modelo instalado mejora imágenes de {modality}</translation>
    </message>
    <message>
        <source>There are models for {known}. Correct the modality, or import a model on the page Models; compression needs no model.</source>
        <translation>Hay modelos para {known}. Corrija la modalidad, o importe un modelo en la página Modelos; la compresión no necesita ninguno.</translation>
    </message>
    <message>
        <source>Import a model on the page Models; compression needs no model.</source>
        <translation>Importe un modelo en la página Modelos; la compresión no necesita ninguno.</translation>
    </message>
    <message>
        <source>Large: enhancing needs about {needed}, {free} is free</source>
        <translation>Grande: mejorarlo necesita unos {needed}, hay {free} libres</translation>
    </message>
    <message>
        <source>Crop it with the module Crop Volume, or close other programs.</source>
        <translation>Recórtelo con el módulo Recortar volumen (Crop Volume), o cierre otros programas.</translation>
    </message>
</context>
<context>
    <name>nodes.dicom_source</name>
    <message>
        <source>Slicer&apos;s DICOM database is not open: open the module DICOM once to open it.</source>
        <translation>La base de datos DICOM de Slicer no está abierta: abra una vez el módulo DICOM para abrirla.</translation>
    </message>
    <message>
        <source>Slicer&apos;s DICOM database is not open</source>
        <translation>La base de datos DICOM de Slicer no está abierta</translation>
    </message>
    <message>
        <source>Open the module DICOM once to open it, or export to a folder.</source>
        <translation>Abra una vez el módulo DICOM para abrirla, o exporte a una carpeta.</translation>
    </message>
    <message>
        <source>The series {uid} is no longer in Slicer&apos;s DICOM database</source>
        <translation>La serie {uid} ya no está en la base de datos DICOM de Slicer</translation>
    </message>
    <message>
        <source>Import the series again in the module DICOM, then try again.</source>
        <translation>Importe de nuevo la serie en el módulo DICOM e inténtelo otra vez.</translation>
    </message>
    <message>
        <source>The series {name} is derived: it was computed from another</source>
        <translation>La serie {name} es derivada: se calculó a partir de otra</translation>
    </message>
    <message>
        <source>Enhance the original; to enhance this one, load it and choose it as volume.</source>
        <translation>Mejore la original; para mejorar esta, cárguela y elíjala como volumen.</translation>
    </message>
    <message>
        <source>Study</source>
        <translation>Estudio</translation>
    </message>
    <message>
        <source>Unnamed</source>
        <translation>Sin nombre</translation>
    </message>
    <message>
        <source>The image {uid} is no longer in Slicer&apos;s DICOM database</source>
        <translation>La imagen {uid} ya no está en la base de datos DICOM de Slicer</translation>
    </message>
    <message>
        <source>The images were loaded from Slicer&apos;s DICOM database, which is not open</source>
        <translation>Las imágenes se cargaron desde la base de datos DICOM de Slicer, que no está abierta</translation>
    </message>
    <message>
        <source>Open the module DICOM once to open the database, then try again.</source>
        <translation>Abra una vez el módulo DICOM para abrir la base de datos e inténtelo de nuevo.</translation>
    </message>
    <message>
        <source>{path}, the source of the volume, no longer exists</source>
        <translation>{path}, el origen del volumen, ya no existe</translation>
    </message>
    <message>
        <source>Restore it, or export the volume under a patient ID that you enter.</source>
        <translation>Recupérelo, o exporte el volumen con un ID de paciente que usted introduzca.</translation>
    </message>
</context>
<context>
    <name>nodes.model_choice</name>
    <message>
        <source>A sequence cannot be segmented as a whole: choose one frame.</source>
        <translation>Una secuencia no se puede segmentar entera: elija un fotograma.</translation>
    </message>
    <message>
        <source>There is no segmentation model for {modality}.</source>
        <translation>No hay modelo de segmentación para {modality}.</translation>
    </message>
    <message>
        <source>No segmentation model is recommended for {modality}: choose one, or deselect Segmentation.</source>
        <translation>No se recomienda ningún modelo de segmentación para {modality}: elija uno, o desmarque Segmentación.</translation>
    </message>
    <message>
        <source>The segmentation model {head} is not for {modality}: choose another, or deselect Segmentation.</source>
        <translation>El modelo de segmentación {head} no es para {modality}: elija otro, o desmarque Segmentación.</translation>
    </message>
    <message>
        <source>noise, blur, shading</source>
        <translation>ruido, borrosidad, sombreado</translation>
    </message>
    <message>
        <source>noise</source>
        <translation>ruido</translation>
    </message>
    <message>
        <source>automatic ({what})</source>
        <translation>automático ({what})</translation>
    </message>
    <message>
        <source>noise only</source>
        <translation>solo ruido</translation>
    </message>
    <message>
        <source>noise and blur</source>
        <translation>ruido y borrosidad</translation>
    </message>
    <message>
        <source>thin slices from thick ones</source>
        <translation>cortes finos a partir de gruesos</translation>
    </message>
    <message>
        <source>motion</source>
        <translation>movimiento</translation>
    </message>
    <message>
        <source>automatic</source>
        <translation>automático</translation>
    </message>
    <message>
        <source>{modality}: {task}</source>
        <translation>{modality}: {task}</translation>
    </message>
    <message>
        <source>Corrects what is measured in the volume, as far as it is certain: noise, and in MR blur and shading</source>
        <translation>Corrige lo que se mide en el volumen, hasta donde es seguro: ruido y, en RM, borrosidad y sombreado</translation>
    </message>
    <message>
        <source>Removes noise; blur and shading stay</source>
        <translation>Quita el ruido; la borrosidad y el sombreado quedan</translation>
    </message>
    <message>
        <source>Removes noise, and undoes blur; shading stays</source>
        <translation>Quita el ruido y deshace la borrosidad; el sombreado queda</translation>
    </message>
    <message>
        <source>Makes thin slices between thick ones, on a new grid</source>
        <translation>Hace cortes finos entre los gruesos, en una rejilla nueva</translation>
    </message>
    <message>
        <source>Corrects motion between slices during the scan</source>
        <translation>Corrige el movimiento entre cortes durante la adquisición</translation>
    </message>
    <message>
        <source>Not available with a region: it needs the whole volume.</source>
        <translation>No disponible con una región: necesita el volumen entero.</translation>
    </message>
    <message>
        <source>Not available for thin slices: enhance the result again for it.</source>
        <translation>No disponible para cortes finos: mejore otra vez el resultado para obtenerlo.</translation>
    </message>
    <message>
        <source>Choose a volume, or load one on the Load page.</source>
        <translation>Elija un volumen, o cargue uno en la página Cargar.</translation>
    </message>
    <message>
        <source>The modality of {name} is not known: choose it on the Load page, or choose the model yourself, below Advanced.</source>
        <translation>No se conoce la modalidad de {name}: elíjala en la página Cargar, o elija usted el modelo en Avanzado.</translation>
    </message>
    <message>
        <source>No model is recommended for {modality}: choose one.</source>
        <translation>No se recomienda ningún modelo para {modality}: elija uno.</translation>
    </message>
    <message>
        <source>The model {model} is not for {modality}: choose another.</source>
        <translation>El modelo {model} no es para {modality}: elija otro.</translation>
    </message>
    <message>
        <source>There is no model for {modality}, the modality of {name}; there are models for {known}. If the modality is wrong, correct it on the Load page.</source>
        <translation>No hay modelo para {modality}, la modalidad de {name}; hay modelos para {known}. Si la modalidad es errónea, corríjala en la página Cargar.</translation>
    </message>
    <message>
        <source> and </source>
        <translation> y </translation>
    </message>
    <message>
        <source>Thin slices are made of single volumes: choose one frame.</source>
        <translation>Los cortes finos se obtienen de volúmenes individuales: elija un fotograma.</translation>
    </message>
    <message>
        <source>There is no model of thin slices for {modality}.</source>
        <translation>No hay modelo de cortes finos para {modality}.</translation>
    </message>
    <message>
        <source>The guide is the volume itself: choose another series of this examination.</source>
        <translation>La guía es el propio volumen: elija otra serie de este estudio.</translation>
    </message>
    <message>
        <source>{name} is {modality}, the volume {volume}: choose one of the same modality.</source>
        <translation>{name} es {modality} y el volumen es {volume}: elija uno de la misma modalidad.</translation>
    </message>
    <message>
        <source>{modality}, trained on {data}</source>
        <translation>{modality}, entrenado con {data}</translation>
    </message>
    <message>
        <source>Imported: it did not come with MedEnhance.</source>
        <translation>Importado: no venía con MedEnhance.</translation>
    </message>
    <message>
        <source>images of the {anatomy}</source>
        <translation>imágenes de {anatomy}</translation>
    </message>
    <message>
        <source>images</source>
        <translation>imágenes</translation>
    </message>
    <message>
        <source>one person</source>
        <translation>una persona</translation>
    </message>
    <message>
        <source>{count} people</source>
        <translation>{count} personas</translation>
    </message>
    <message>
        <source>images of {whose} ({anatomy})</source>
        <translation>imágenes de {whose} ({anatomy})</translation>
    </message>
    <message>
        <source>images of {whose}</source>
        <translation>imágenes de {whose}</translation>
    </message>
    <message>
        <source>A sequence gets neither a segmentation nor a difference map: for these, choose a single frame as the volume.</source>
        <translation>Con una secuencia no se hace segmentación ni mapa de diferencias: para ello, elija un solo fotograma como volumen.</translation>
    </message>
    <message>
        <source>{name} finds: {structures}.</source>
        <translation>{name} encuentra: {structures}.</translation>
    </message>
    <message>
        <source>Only for images that show it.</source>
        <translation>Solo para imágenes que lo muestren.</translation>
    </message>
    <message>
        <source>{name} is enhanced already.</source>
        <translation>{name} ya está mejorado.</translation>
    </message>
    <message>
        <source>Choose the original: a second time smooths what should stay.</source>
        <translation>Elija el original: una segunda vez suaviza lo que debería quedar.</translation>
    </message>
    <message>
        <source>Correct the modality on the Load page if it is wrong.</source>
        <translation>Corrija la modalidad en la página Cargar si es errónea.</translation>
    </message>
    <message>
        <source>{name} {version}, for {modality}</source>
        <translation>{name} {version}, para {modality}</translation>
    </message>
    <message>
        <source>Trained on</source>
        <translation>Entrenado con</translation>
    </message>
    <message>
        <source>Limits</source>
        <translation>Límites</translation>
    </message>
    <message>
        <source>{names} and {count} more</source>
        <translation>{names} y {count} más</translation>
    </message>
</context>
<context>
    <name>nodes.nrrd</name>
    <message>
        <source>Frame {frame} differs in size or type from the first</source>
        <translation>El fotograma {frame} difiere del primero en tamaño o tipo</translation>
    </message>
    <message>
        <source>{path} is not a NRRD file</source>
        <translation>{path} no es un archivo NRRD</translation>
    </message>
    <message>
        <source>Run the job again.</source>
        <translation>Ejecute de nuevo el trabajo.</translation>
    </message>
    <message>
        <source>The result has {shape} voxels, the volume {there}</source>
        <translation>El resultado tiene {shape} vóxeles, el volumen {there}</translation>
    </message>
    <message>
        <source>The volume was changed in the meantime; run it again.</source>
        <translation>El volumen cambió entretanto; ejecútelo de nuevo.</translation>
    </message>
    <message>
        <source>{path} is cut short</source>
        <translation>{path} está incompleto</translation>
    </message>
</context>
<context>
    <name>nodes.preview</name>
    <message>
        <source>Shading is not corrected in the preview.</source>
        <translation>El sombreado no se corrige en la vista previa.</translation>
    </message>
    <message>
        <source>Apply also corrects blur and shading where it finds them.</source>
        <translation>Aplicar corrige también la borrosidad y el sombreado donde los encuentre.</translation>
    </message>
    <message>
        <source>The look is not taken over in the preview.</source>
        <translation>El aspecto no se adopta en la vista previa.</translation>
    </message>
    <message>
        <source>Apply changes the region alone.</source>
        <translation>Aplicar cambia solo la región.</translation>
    </message>
</context>
<context>
    <name>nodes.region</name>
    <message>
        <source>Region</source>
        <translation>Región</translation>
    </message>
    <message>
        <source>Nothing of {volume} lies in the region {name}</source>
        <translation>La región {name} no contiene nada de {volume}</translation>
    </message>
    <message>
        <source>Move the region over the volume, or choose another.</source>
        <translation>Mueva la región sobre el volumen, o elija otra.</translation>
    </message>
    <message>
        <source>A region is of single volumes: choose one frame.</source>
        <translation>Una región es para volúmenes individuales: elija un fotograma.</translation>
    </message>
    <message>
        <source>Choose the segment that is the region.</source>
        <translation>Elija el segmento que es la región.</translation>
    </message>
    <message>
        <source>A region cannot be found under a non-linear transform: harden it first.</source>
        <translation>No se puede hallar una región bajo una transformada no lineal: endurézcala (harden) primero.</translation>
    </message>
</context>
<context>
    <name>nodes.results</name>
    <message>
        <source>Trained on images of the {anatomy} only; not validated outside the {anatomy}</source>
        <translation>Entrenado solo con imágenes de {anatomy}; no validado fuera de {anatomy}</translation>
    </message>
    <message>
        <source>Enhanced − input
{unit}</source>
        <translation>Mejorado − entrada
{unit}</translation>
    </message>
    <message>
        <source>Uncertainty (1 SD)
{unit}</source>
        <translation>Incertidumbre (1 DE)
{unit}</translation>
    </message>
    <message>
        <source>Measured noise (1 SD)
{unit}</source>
        <translation>Ruido medido (1 DE)
{unit}</translation>
    </message>
    <message>
        <source>intensity units</source>
        <translation>unidades de intensidad</translation>
    </message>
    <message>
        <source>Structure</source>
        <translation>Estructura</translation>
    </message>
    <message>
        <source>Voxels</source>
        <translation>Vóxeles</translation>
    </message>
    <message>
        <source>Volume (mL)</source>
        <translation>Volumen (mL)</translation>
    </message>
    <message>
        <source>Surface (mm²)</source>
        <translation>Superficie (mm²)</translation>
    </message>
</context>
<context>
    <name>pages.compress</name>
    <message>
        <source>The compressed file, ending in .ucv</source>
        <translation>El archivo comprimido, que termina en .ucv</translation>
    </message>
    <message>
        <source>Save the compressed volume</source>
        <translation>Guardar el volumen comprimido</translation>
    </message>
    <message>
        <source>Write the file and verify it</source>
        <translation>Escribir el archivo y verificarlo</translation>
    </message>
    <message>
        <source>Choose a volume to see the estimated file size.</source>
        <translation>Elija un volumen para ver el tamaño estimado del archivo.</translation>
    </message>
    <message>
        <source>The folder {folder} will be created.</source>
        <translation>Se creará la carpeta {folder}.</translation>
    </message>
    <message>
        <source>There is no scene</source>
        <translation>No hay escena</translation>
    </message>
    <message>
        <source>The volume is being compressed</source>
        <translation>Se está comprimiendo el volumen</translation>
    </message>
    <message>
        <source>Estimating…</source>
        <translation>Estimando…</translation>
    </message>
    <message>
        <source>No estimate: {why}</source>
        <translation>Sin estimación: {why}</translation>
    </message>
    <message>
        <source>{name} was compressed and verified: {size}.</source>
        <translation>{name} se comprimió y se verificó: {size}.</translation>
    </message>
    <message>
        <source>The volume is no longer in the scene</source>
        <translation>El volumen ya no está en la escena</translation>
    </message>
    <message>
        <source>Load it again.</source>
        <translation>Cárguelo de nuevo.</translation>
    </message>
    <message>
        <source>Normal speed</source>
        <translation>Velocidad normal</translation>
    </message>
    <message>
        <source>Fast, lossless files 5 to 30 % larger</source>
        <translation>Rápido: sin pérdida, 5 a 30 % mayor</translation>
    </message>
</context>
<context>
    <name>pages.decompress</name>
    <message>
        <source>Open a compressed volume</source>
        <translation>Abrir un volumen comprimido</translation>
    </message>
    <message>
        <source>Reading…</source>
        <translation>Leyendo…</translation>
    </message>
    <message>
        <source>{path} does not exist.</source>
        <translation>{path} no existe.</translation>
    </message>
    <message>
        <source>Choose a file to see its contents.</source>
        <translation>Elija un archivo para ver su contenido.</translation>
    </message>
    <message>
        <source>of {count}</source>
        <translation>de {count}</translation>
    </message>
    <message>
        <source>{name} was loaded.</source>
        <translation>{name} se ha cargado.</translation>
    </message>
</context>
<context>
    <name>pages.distill</name>
    <message>
        <source>Removing noise</source>
        <translation>Eliminar ruido</translation>
    </message>
    <message>
        <source>Doubling the resolution</source>
        <translation>Duplicar la resolución</translation>
    </message>
    <message>
        <source>Four times the resolution</source>
        <translation>Cuadruplicar la resolución</translation>
    </message>
    <message>
        <source>Completing undersampled MR</source>
        <translation>Completar RM submuestreada</translation>
    </message>
    <message>
        <source>As in the files</source>
        <translation>Como en los archivos</translation>
    </message>
    <message>
        <source>MR</source>
        <translation>RM</translation>
    </message>
    <message>
        <source>CT</source>
        <translation>TC</translation>
    </message>
    <message>
        <source>Automatic</source>
        <translation>Automático</translation>
    </message>
    <message>
        <source>Processor</source>
        <translation>Procesador</translation>
    </message>
    <message>
        <source>Graphics card (CUDA)</source>
        <translation>Tarjeta gráfica (CUDA)</translation>
    </message>
    <message>
        <source>Graphics card (Apple)</source>
        <translation>Tarjeta gráfica (Apple)</translation>
    </message>
    <message>
        <source>Short, for a processor</source>
        <translation>Corta, para un procesador</translation>
    </message>
    <message>
        <source>Full, for a graphics card</source>
        <translation>Completa, para una tarjeta gráfica</translation>
    </message>
    <message>
        <source>Test: seconds</source>
        <translation>Prueba: segundos</translation>
    </message>
    <message>
        <source>Images in all:</source>
        <translation>Imágenes en total:</translation>
    </message>
    <message>
        <source>Images per patient:</source>
        <translation>Imágenes por paciente:</translation>
    </message>
    <message>
        <source>A few images stand in for a cohort, to train small networks for one task. They are audited; this does not prove that nobody can be recognized. If ten real images may be shared, share those: training works about as well.</source>
        <translation>Unas pocas imágenes sustituyen a una cohorte, para entrenar redes pequeñas en una tarea. Se auditan; eso no demuestra que nadie pueda ser reconocido. Si se pueden compartir diez imágenes reales, compártalas: entrenar con ellas funciona más o menos igual de bien.</translation>
    </message>
    <message>
        <source>Trains an enhancer on your cohort: its model is then among the models.</source>
        <translation>Entrena un mejorador con su cohorte: su modelo aparece después entre los modelos.</translation>
    </message>
    <message>
        <source>The files are read from their folder.</source>
        <translation>Los archivos se leen de su carpeta.</translation>
    </message>
    <message>
        <source>The scene has no volumes yet: load some on the page Load.</source>
        <translation>La escena aún no tiene volúmenes: cárguelos en la página Cargar.</translation>
    </message>
    <message>
        <source>{patients} patients, {volumes} volumes. They are copied into the run&apos;s folder without patient names, and deleted there at the end.</source>
        <translation>{patients} pacientes, {volumes} volúmenes. Se copian a la carpeta de la ejecución sin nombres de pacientes, y allí se borran al final.</translation>
    </message>
    <message>
        <source>Good: {high}. Poor: {low}. They are copied into the run&apos;s folder without patient names.</source>
        <translation>Buenos: {high}. Deficientes: {low}. Se copian a la carpeta de la ejecución sin nombres de pacientes.</translation>
    </message>
    <message>
        <source>A run is in progress</source>
        <translation>Hay una ejecución en curso</translation>
    </message>
    <message>
        <source>There is no scene</source>
        <translation>No hay escena</translation>
    </message>
    <message>
        <source>Give the model a name.</source>
        <translation>Dé un nombre al modelo.</translation>
    </message>
    <message>
        <source>Choose the folder with the volumes.</source>
        <translation>Elija la carpeta con los volúmenes.</translation>
    </message>
    <message>
        <source>Choose a folder</source>
        <translation>Elegir una carpeta</translation>
    </message>
    <message>
        <source>Choose a table</source>
        <translation>Elegir una tabla</translation>
    </message>
    <message>
        <source>Tables (*.csv)</source>
        <translation>Tablas (*.csv)</translation>
    </message>
    <message>
        <source>MedEnhance: a patient as the prior</source>
        <translation>MedEnhance: un paciente como volumen de partida</translation>
    </message>
    <message>
        <source>Matching: images of each patient (minutes)</source>
        <translation>Correspondencia: imágenes de cada paciente (minutos)</translation>
    </message>
    <message>
        <source>Statistics: the prior with the cohort&apos;s means (seconds)</source>
        <translation>Estadísticas: partida con las medias de la cohorte (segundos)</translation>
    </message>
    <message>
        <source>Automatic: what pays for this cohort</source>
        <translation>Automático: lo que compense con esta cohorte</translation>
    </message>
</context>
<context>
    <name>pages.distill_choices</name>
    <message>
        <source>(no patient)</source>
        <translation>(sin paciente)</translation>
    </message>
    <message>
        <source>Good</source>
        <translation>Bueno</translation>
    </message>
    <message>
        <source>Poor</source>
        <translation>Deficiente</translation>
    </message>
    <message>
        <source>Distill</source>
        <translation>Destilar</translation>
    </message>
    <message>
        <source>Leave out</source>
        <translation>Omitir</translation>
    </message>
    <message>
        <source>Good: high quality, to learn from. Poor: real images of ordinary quality.</source>
        <translation>Bueno: de alta calidad, para aprender de él. Deficiente: imágenes reales de calidad corriente.</translation>
    </message>
    <message>
        <source>Whether this volume is part of the cohort</source>
        <translation>Si este volumen forma parte de la cohorte</translation>
    </message>
    <message>
        <source>Public template (MR)</source>
        <translation>Plantilla pública (RM)</translation>
    </message>
    <message>
        <source>A volume of the scene</source>
        <translation>Un volumen de la escena</translation>
    </message>
    <message>
        <source>A file</source>
        <translation>Un archivo</translation>
    </message>
    <message>
        <source>A patient of the cohort</source>
        <translation>Un paciente de la cohorte</translation>
    </message>
    <message>
        <source>The most typical patient of the cohort</source>
        <translation>El paciente más típico de la cohorte</translation>
    </message>
    <message>
        <source>Choose a volume</source>
        <translation>Elija un volumen</translation>
    </message>
    <message>
        <source>Choose a segmenter</source>
        <translation>Elegir un segmentador</translation>
    </message>
    <message>
        <source>Choose the folder of a segmenter</source>
        <translation>Elegir la carpeta de un segmentador</translation>
    </message>
    <message>
        <source>patient {name}</source>
        <translation>el paciente {name}</translation>
    </message>
    <message>
        <source>the most typical patient of the cohort</source>
        <translation>el paciente más típico de la cohorte</translation>
    </message>
    <message>
        <source>Every distilled image will show the anatomy of {who}. Anyone who gets the images can recognize this person, whatever the audit finds. Continue only if this person consented.</source>
        <translation>Todas las imágenes destiladas mostrarán la anatomía de esta persona: {who}. Cualquiera que reciba las imágenes puede reconocerla, encuentre lo que encuentre la auditoría. Continúe solo si esta persona dio su consentimiento.</translation>
    </message>
    <message>
        <source>Estimating the time…</source>
        <translation>Estimando la duración…</translation>
    </message>
    <message>
        <source>Estimate the time of a distillation</source>
        <translation>Estimar la duración de una destilación</translation>
    </message>
    <message>
        <source>The time could not be estimated: {why}</source>
        <translation>No se pudo estimar la duración: {why}</translation>
    </message>
    <message>
        <source>Check this computer</source>
        <translation>Comprobar este equipo</translation>
    </message>
    <message>
        <source>Stop the estimate</source>
        <translation>Detener la estimación</translation>
    </message>
    <message>
        <source>This trains small networks, which can take minutes…</source>
        <translation>Esto entrena redes pequeñas, lo que puede tardar minutos…</translation>
    </message>
    <message>
        <source>What can be gained could not be estimated: {why}</source>
        <translation>No se pudo estimar lo que se puede ganar: {why}</translation>
    </message>
    <message>
        <source>Nothing can be distilled.</source>
        <translation>No se puede destilar nada.</translation>
    </message>
    <message>
        <source>{time} for {patients} patients ({each} per patient), plus the audit.</source>
        <translation>{time} para {patients} pacientes ({each} por paciente), más la auditoría.</translation>
    </message>
    <message>
        <source>No CUDA device was found, so it runs on the processor:</source>
        <translation>No se encontró ningún dispositivo CUDA, así que se ejecuta en el procesador:</translation>
    </message>
    <message>
        <source>On the processor:</source>
        <translation>En el procesador:</translation>
    </message>
    <message>
        <source>On {device}:</source>
        <translation>En {device}:</translation>
    </message>
    <message>
        <source>You can continue to use Slicer.</source>
        <translation>Puede seguir usando Slicer.</translation>
    </message>
</context>
<context>
    <name>pages.distill_run</name>
    <message>
        <source>No run is in progress</source>
        <translation>No hay ninguna ejecución en curso</translation>
    </message>
    <message>
        <source>Stop after writing a checkpoint; Resume continues from it, also after Slicer was closed</source>
        <translation>Detener tras escribir un punto de control; Reanudar continúa desde él, también después de cerrar Slicer</translation>
    </message>
    <message>
        <source>Stop permanently; the run&apos;s folder is kept</source>
        <translation>Detener definitivamente; se conserva la carpeta de la ejecución</translation>
    </message>
    <message>
        <source>Show the loss in a plot view of the layout</source>
        <translation>Mostrar la pérdida en una vista de gráfica de la disposición</translation>
    </message>
    <message>
        <source>There is no run to show</source>
        <translation>No hay ninguna ejecución que mostrar</translation>
    </message>
    <message>
        <source>{name} is finished. {headline}</source>
        <translation>{name} ha terminado. {headline}</translation>
    </message>
    <message>
        <source>{name} is finished. Read the audit below before sharing the images.</source>
        <translation>{name} ha terminado. Lea la auditoría de abajo antes de compartir las imágenes.</translation>
    </message>
    <message>
        <source>Add {name} to the models</source>
        <translation>Añadir {name} a los modelos</translation>
    </message>
    <message>
        <source>{name} is trained. Choose it on the page Enhance.</source>
        <translation>{name} está entrenado. Elíjalo en la página Mejorar.</translation>
    </message>
    <message>
        <source>{name} is trained, but could not be added to the models: {why}</source>
        <translation>{name} está entrenado, pero no se pudo añadir a los modelos: {why}</translation>
    </message>
    <message>
        <source>Elapsed: {time}</source>
        <translation>Transcurrido: {time}</translation>
    </message>
    <message>
        <source>This run executes the program in {path}. Continue only if you trust where it comes from.</source>
        <translation>Esta ejecución pone en marcha el programa de {path}. Continúe solo si confía en su procedencia.</translation>
    </message>
    <message>
        <source>MedEnhance: a program in a segmenter&apos;s file</source>
        <translation>MedEnhance: un programa en el archivo de un segmentador</translation>
    </message>
    <message>
        <source>Check the progress of {name}</source>
        <translation>Comprobar el progreso de {name}</translation>
    </message>
    <message>
        <source>Another process is running it: wait for it, or stop it there.</source>
        <translation>Otro proceso lo está ejecutando: espere a que termine, o deténgalo allí.</translation>
    </message>
    <message>
        <source>Pictures and names of patients: do not share them</source>
        <translation>Imágenes y nombres de pacientes: no los comparta</translation>
    </message>
    <message>
        <source>There are no confidential files: no audit compared patients</source>
        <translation>No hay archivos confidenciales: ninguna auditoría comparó pacientes</translation>
    </message>
    <message>
        <source>Prior (shows a patient)</source>
        <translation>Volumen de partida (muestra a un paciente)</translation>
    </message>
    <message>
        <source>Prior</source>
        <translation>Volumen de partida</translation>
    </message>
    <message>
        <source>Distilled images ({count})</source>
        <translation>Imágenes destiladas ({count})</translation>
    </message>
    <message>
        <source>The first {most} of {count} distilled images</source>
        <translation>Las primeras {most} de {count} imágenes destiladas</translation>
    </message>
    <message>
        <source>Pictures and names of patients are in {folder}. Do not share that folder.</source>
        <translation>Las imágenes y los nombres de los pacientes están en {folder}. No comparta esa carpeta.</translation>
    </message>
    <message>
        <source>Leak found: do not share this.</source>
        <translation>Se encontró una fuga: no comparta esto.</translation>
    </message>
    <message>
        <source>What is listed below was found; the attacks may have missed other leaks.</source>
        <translation>Se encontró lo que se indica abajo; los ataques pueden haber pasado por alto otras fugas.</translation>
    </message>
    <message>
        <source>Treat the images as the patients&apos; own.</source>
        <translation>Trate las imágenes como si fueran las de los pacientes.</translation>
    </message>
    <message>
        <source>Not audited.</source>
        <translation>Sin auditar.</translation>
    </message>
    <message>
        <source>Nothing is known: none of {count} attacks could have found a leak.</source>
        <translation>No se sabe nada: ninguno de los {count} ataques podría haber encontrado una fuga.</translation>
    </message>
    <message>
        <source>This is no proof: weaker leaks than those stated below, or others, can be there.</source>
        <translation>Esto no es una prueba: puede haber fugas más débiles que las indicadas abajo, u otras.</translation>
    </message>
    <message>
        <source>These attacks found no leak.</source>
        <translation>Estos ataques no encontraron ninguna fuga.</translation>
    </message>
    <message>
        <source>No leak was found by the {could} of {count} attacks that could have found one.</source>
        <translation>No encontraron ninguna fuga los {could} de {count} ataques que podrían haberla encontrado.</translation>
    </message>
    <message>
        <source>{name}: loss</source>
        <translation>{name}: pérdida</translation>
    </message>
    <message>
        <source>step</source>
        <translation>paso</translation>
    </message>
    <message>
        <source>loss</source>
        <translation>pérdida</translation>
    </message>
</context>
<context>
    <name>pages.enhance</name>
    <message>
        <source>All {count} &amp;frames of {name}</source>
        <translation>Los {count} &amp;fotogramas de {name}</translation>
    </message>
    <message>
        <source>Only for MR.</source>
        <translation>Solo para RM.</translation>
    </message>
    <message>
        <source>Enhance the whole volume (Ctrl+Shift+E)</source>
        <translation>Mejorar el volumen entero (Ctrl+Shift+E)</translation>
    </message>
    <message>
        <source>Hide &amp;preview</source>
        <translation>Ocultar &amp;vista previa</translation>
    </message>
    <message>
        <source>&amp;Preview</source>
        <translation>&amp;Vista previa</translation>
    </message>
    <message>
        <source>Enhance only the slice that is shown, in place (Ctrl+Shift+P)</source>
        <translation>Mejorar solo el corte que se muestra, en su sitio (Ctrl+Shift+P)</translation>
    </message>
    <message>
        <source>Python packages are missing: install them with the button at the top.</source>
        <translation>Faltan paquetes de Python: instálelos con el botón de la parte superior.</translation>
    </message>
    <message>
        <source>Wait for the run to finish, or cancel it.</source>
        <translation>Espere a que termine la ejecución, o cancélela.</translation>
    </message>
    <message>
        <source>Wait until the strength has been applied.</source>
        <translation>Espere a que se haya aplicado el grado.</translation>
    </message>
    <message>
        <source>Thin slices lie on another grid: there is no preview of them.</source>
        <translation>Los cortes finos están en otra cuadrícula: no hay vista previa de ellos.</translation>
    </message>
    <message>
        <source>No frame of the sequence is shown.</source>
        <translation>No se muestra ningún fotograma de la secuencia.</translation>
    </message>
    <message>
        <source>There is no slice view in the layout.</source>
        <translation>No hay ninguna vista de corte en la disposición.</translation>
    </message>
    <message>
        <source>{name} is ready, after {time}.</source>
        <translation>{name} está listo, tras {time}.</translation>
    </message>
    <message>
        <source>Preview of slice {number} in the {view} view.</source>
        <translation>Vista previa del corte {number} en la vista {view}.</translation>
    </message>
</context>
<context>
    <name>pages.enhance_batch</name>
    <message>
        <source>The scene</source>
        <translation>La escena</translation>
    </message>
    <message>
        <source>A folder of files</source>
        <translation>Una carpeta de archivos</translation>
    </message>
    <message>
        <source>Slicer&apos;s DICOM database</source>
        <translation>La base de datos DICOM de Slicer</translation>
    </message>
    <message>
        <source>Show table</source>
        <translation>Mostrar tabla</translation>
    </message>
    <message>
        <source>What became of each volume of the last batch, and why</source>
        <translation>Qué fue de cada volumen del último lote, y por qué</translation>
    </message>
    <message>
        <source>Choose a patient, study or folder.</source>
        <translation>Elija un paciente, un estudio o una carpeta.</translation>
    </message>
    <message>
        <source>A batch takes the volumes of a patient, a study or a folder of the scene, and those of this scene lie in none: put them into one in the Data module.</source>
        <translation>Un lote toma los volúmenes de un paciente, un estudio o una carpeta de la escena, y los de esta escena no están en ninguno: póngalos en uno en el módulo Data.</translation>
    </message>
    <message>
        <source>The scene has no patient, study or folder yet; make one in the Data module.</source>
        <translation>La escena aún no tiene paciente, estudio ni carpeta; cree uno en el módulo Datos (Data).</translation>
    </message>
    <message>
        <source>It contains no volumes.</source>
        <translation>No contiene volúmenes.</translation>
    </message>
    <message>
        <source>{fit} of {count} volumes can be enhanced; the table will list why the others cannot.</source>
        <translation>Se pueden mejorar {fit} de {count} volúmenes; la tabla indicará por qué los demás no.</translation>
    </message>
    <message>
        <source>One volume, with the settings above.</source>
        <translation>Un volumen, con los ajustes de arriba.</translation>
    </message>
    <message>
        <source>{count} volumes, with the settings above.</source>
        <translation>{count} volúmenes, con los ajustes de arriba.</translation>
    </message>
    <message>
        <source>Choose a folder of volumes</source>
        <translation>Elegir una carpeta de volúmenes</translation>
    </message>
    <message>
        <source>Choose the folder of the results</source>
        <translation>Elegir la carpeta de los resultados</translation>
    </message>
    <message>
        <source>Enhance a&amp;ll</source>
        <translation>Me&amp;jorar todos</translation>
    </message>
    <message>
        <source>Choose a folder: every volume below it is enhanced.</source>
        <translation>Elija una carpeta: se mejoran todos los volúmenes que contiene.</translation>
    </message>
    <message>
        <source>There is no folder {path}.</source>
        <translation>No existe la carpeta {path}.</translation>
    </message>
    <message>
        <source>Choose another folder for the results.</source>
        <translation>Elija otra carpeta para los resultados.</translation>
    </message>
    <message>
        <source>Looking for volumes below the folder…</source>
        <translation>Buscando volúmenes dentro de la carpeta…</translation>
    </message>
    <message>
        <source>There are no volumes below the folder.</source>
        <translation>No hay volúmenes dentro de la carpeta.</translation>
    </message>
    <message>
        <source>Volumes found below the folder, or folders of DICOM: {count}.</source>
        <translation>Volúmenes encontrados dentro de la carpeta, o carpetas de DICOM: {count}.</translation>
    </message>
    <message>
        <source>Begun again, it goes on where it stopped; no file is overwritten.</source>
        <translation>Si se inicia otra vez, continúa donde se detuvo; no se sobrescribe ningún archivo.</translation>
    </message>
    <message>
        <source>MR and CT</source>
        <translation>RM y TC</translation>
    </message>
    <message>
        <source>The database has no studies: import some in the module DICOM.</source>
        <translation>La base de datos no tiene estudios: importe alguno en el módulo DICOM.</translation>
    </message>
    <message>
        <source>Choose studies; Ctrl and Shift choose several.</source>
        <translation>Elija estudios; con Ctrl y Mayús se eligen varios.</translation>
    </message>
    <message>
        <source>The chosen studies have no such series.</source>
        <translation>Los estudios elegidos no tienen series de este tipo.</translation>
    </message>
    <message>
        <source>One series is loaded and enhanced, as a new volume of the scene.</source>
        <translation>Se carga y mejora una serie, como volumen nuevo de la escena.</translation>
    </message>
    <message>
        <source>{count} series are loaded and enhanced, as new volumes of the scene. Those that were computed are left out.</source>
        <translation>Se cargan y mejoran {count} series, como volúmenes nuevos de la escena. Las que fueron calculadas se omiten.</translation>
    </message>
    <message>
        <source>Enhance a&amp;ll {count}</source>
        <translation>Me&amp;jorar los {count}</translation>
    </message>
    <message>
        <source>Each is enhanced with the model {model}; one of another modality is listed as failed.</source>
        <translation>Cada uno se mejora con el modelo {model}; uno de otra modalidad figura como fallido.</translation>
    </message>
    <message>
        <source>Each gets the automatic task of its modality.</source>
        <translation>Cada uno recibe la tarea automática de su modalidad.</translation>
    </message>
    <message>
        <source>Each gets the task chosen above, with the model of its modality.</source>
        <translation>Cada uno recibe la tarea elegida arriba, con el modelo de su modalidad.</translation>
    </message>
    <message>
        <source>Each is guided by the best other series of its study or folder.</source>
        <translation>Cada uno se guía por la mejor de las otras series de su estudio o carpeta.</translation>
    </message>
    <message>
        <source>Look, region and noise map are left out.</source>
        <translation>Se omiten el aspecto, la región y el mapa de ruido.</translation>
    </message>
</context>
<context>
    <name>pages.enhance_choices</name>
    <message>
        <source>Recommended: {name}</source>
        <translation>Recomendado: {name}</translation>
    </message>
    <message>
        <source>Recommended for the volume</source>
        <translation>Recomendado para el volumen</translation>
    </message>
    <message>
        <source>Choose a model</source>
        <translation>Elija un modelo</translation>
    </message>
    <message>
        <source>No model for this volume</source>
        <translation>No hay modelo para este volumen</translation>
    </message>
    <message>
        <source>Choose a segment</source>
        <translation>Elija un segmento</translation>
    </message>
    <message>
        <source>Suggested: {name}</source>
        <translation>Sugerida: {name}</translation>
    </message>
    <message>
        <source>Automatic</source>
        <translation>Automático</translation>
    </message>
    <message>
        <source>CPU</source>
        <translation>CPU</translation>
    </message>
    <message>
        <source>Check this computer</source>
        <translation>Comprobar este equipo</translation>
    </message>
    <message>
        <source>{device} (not found here)</source>
        <translation>{device} (no se encuentra aquí)</translation>
    </message>
    <message>
        <source>Automatic: {name}</source>
        <translation>Automático: {name}</translation>
    </message>
    <message>
        <source>{free} of {total} free on the graphics card; enhancing takes up to {needs}.</source>
        <translation>{free} de {total} libres en la tarjeta gráfica; mejorar ocupa hasta {needs}.</translation>
    </message>
    <message>
        <source>With less it works in smaller parts, and goes on on the processor where that is not enough: slower, with the same result within rounding. A warning will say so.</source>
        <translation>Con menos trabaja en partes más pequeñas, y sigue en el procesador donde eso no baste: más lento, con el mismo resultado salvo redondeo. Un aviso lo indicará.</translation>
    </message>
    <message>
        <source>{free} of {total} free on the graphics card; this run takes up to {needs}.</source>
        <translation>{free} de {total} libres en la tarjeta gráfica; esta ejecución ocupa hasta {needs}.</translation>
    </message>
    <message>
        <source>With less it takes half as many patches at once, with a warning. Where that is not enough it stops, and goes on from its last checkpoint when it is started again, also on the processor.</source>
        <translation>Con menos, toma la mitad de parches a la vez, con una advertencia. Si no basta, se detiene y, al iniciarla de nuevo, continúa desde su último punto de control, también en el procesador.</translation>
    </message>
    <message>
        <source>With less it may stop because memory ran out. Started again, it goes on from its last checkpoint, also on the processor. Close other programs, or choose a shorter budget.</source>
        <translation>Con menos, puede detenerse porque se agotó la memoria. Al iniciarla de nuevo, continúa desde su último punto de control, también en el procesador. Cierre otros programas o elija un presupuesto más corto.</translation>
    </message>
    <message>
        <source>The output “{name}” is an original volume and would be lost</source>
        <translation>La salida «{name}» es un volumen original y se perdería</translation>
    </message>
    <message>
        <source>The output “{name}” is no earlier result of this volume and would be lost</source>
        <translation>La salida «{name}» no es un resultado anterior de este volumen y se perdería</translation>
    </message>
    <message>
        <source>Select the check box to overwrite it, or choose “Create new volume”.</source>
        <translation>Marque la casilla para sobrescribirla, o elija «Crear un volumen nuevo».</translation>
    </message>
</context>
<context>
    <name>pages.enhance_result</name>
    <message>
        <source>Standard deviation of each voxel, in the volume&apos;s units</source>
        <translation>Desviación estándar de cada vóxel, en las unidades del volumen</translation>
    </message>
    <message>
        <source>Uncertainty map</source>
        <translation>Mapa de incertidumbre</translation>
    </message>
    <message>
        <source>Segmentation</source>
        <translation>Segmentación</translation>
    </message>
    <message>
        <source>Not made in this run: select “{choice}” below Advanced, and apply again.</source>
        <translation>No se hizo en esta ejecución: marque «{choice}» en Avanzado y aplique de nuevo.</translation>
    </message>
    <message>
        <source>{seconds:.1f} s</source>
        <translation>{seconds:.1f} s</translation>
    </message>
    <message>
        <source>Its input is not in the scene, so it cannot be compared.</source>
        <translation>Su entrada no está en la escena, por lo que no se puede comparar.</translation>
    </message>
    <message>
        <source>{sentence} And {count} more.</source>
        <translation>{sentence} Y {count} más.</translation>
    </message>
    <message>
        <source>Uncertainty: 1 SD, in {unit}; {calibration}</source>
        <translation>Incertidumbre: 1 DE, en {unit}; {calibration}</translation>
    </message>
    <message>
        <source>strength {strength:.2f}</source>
        <translation>grado {strength:.2f}</translation>
    </message>
    <message>
        <source>in {region} only</source>
        <translation>solo en {region}</translation>
    </message>
    <message>
        <source>Measured noise: σ {sigma:g} {unit}; {share:.0%} of the correction applied</source>
        <translation>Ruido medido: σ {sigma:g} {unit}; {share:.0%} de la corrección aplicado</translation>
    </message>
    <message>
        <source>Guide: changed the image by {share:.0%} of the noise</source>
        <translation>Guía: cambió la imagen en un {share:.0%} del ruido</translation>
    </message>
    <message>
        <source>It is hardly changed: {share:.0%} of the correction was applied</source>
        <translation>Apenas ha cambiado: se aplicó el {share:.0%} de la corrección</translation>
    </message>
    <message>
        <source>The segmentation was made at strength {strength:g}.</source>
        <translation>La segmentación se hizo con grado {strength:g}.</translation>
    </message>
</context>
<context>
    <name>pages.export_dialog</name>
    <message>
        <source>Looking for the series that {name} was made from…</source>
        <translation>Buscando la serie de la que procede {name}…</translation>
    </message>
    <message>
        <source>{name} was made from a DICOM series ({uid}) that is not in Slicer&apos;s DICOM database: import that series in the module DICOM first, or enter the patient.</source>
        <translation>{name} procede de una serie DICOM ({uid}) que no está en la base de datos DICOM de Slicer: impórtela primero en el módulo DICOM, o introduzca el paciente.</translation>
    </message>
    <message>
        <source>{name} does not come from DICOM: enter the patient.</source>
        <translation>{name} no procede de DICOM: introduzca el paciente.</translation>
    </message>
    <message>
        <source>It becomes a derived series in a new study, or in a study of the scene.</source>
        <translation>Será una serie derivada en un estudio nuevo, o en un estudio de la escena.</translation>
    </message>
    <message>
        <source>a new study</source>
        <translation>un estudio nuevo</translation>
    </message>
    <message>
        <source>the study of {name}</source>
        <translation>el estudio de {name}</translation>
    </message>
    <message>
        <source>List the series</source>
        <translation>Enumerar las series</translation>
    </message>
    <message>
        <source>The original series was not found</source>
        <translation>No se encontró la serie original</translation>
    </message>
    <message>
        <source>{error} Enter the patient to export without it.</source>
        <translation>{error} Introduzca el paciente para exportar sin ella.</translation>
    </message>
    <message>
        <source>The volume is no longer in the scene.</source>
        <translation>El volumen ya no está en la escena.</translation>
    </message>
    <message>
        <source>No folder is chosen. Enter a new folder, or deselect it.</source>
        <translation>No hay carpeta elegida. Indique una carpeta nueva, o desmárquela.</translation>
    </message>
    <message>
        <source>Create the new folder in</source>
        <translation>Crear la carpeta nueva en</translation>
    </message>
    <message>
        <source>Export to DICOM</source>
        <translation>Exportar a DICOM</translation>
    </message>
    <message>
        <source>Export {name} all the same?</source>
        <translation>¿Exportar {name} de todos modos?</translation>
    </message>
    <message>
        <source>{count} files in {number} series were written and read back.</source>
        <translation>Se escribieron y se leyeron de nuevo {count} archivos en {number} series.</translation>
    </message>
    <message>
        <source>They were copied into Slicer&apos;s DICOM database.</source>
        <translation>Se copiaron a la base de datos DICOM de Slicer.</translation>
    </message>
    <message>
        <source>They are in {folder}.</source>
        <translation>Están en {folder}.</translation>
    </message>
    <message>
        <source>It becomes a series in a new study, without the patient&apos;s name, with new UIDs.</source>
        <translation>Será una serie en un estudio nuevo, sin el nombre del paciente y con UID nuevos.</translation>
    </message>
    <message>
        <source>New series for patient {patient}, study {study}.</source>
        <translation>Serie nueva para el paciente {patient}, estudio {study}.</translation>
    </message>
    <message>
        <source>(without an ID)</source>
        <translation>(sin ID)</translation>
    </message>
    <message>
        <source>(no description)</source>
        <translation>(sin descripción)</translation>
    </message>
</context>
<context>
    <name>pages.first_use</name>
    <message>
        <source>the best device of this computer</source>
        <translation>el mejor dispositivo de este equipo</translation>
    </message>
    <message>
        <source>the CPU alone (smaller)</source>
        <translation>solo la CPU (más pequeño)</translation>
    </message>
    <message>
        <source>MedEnhance computes with packages that do not come with Slicer. {count} are missing: about {size} to download, once. They go into Slicer&apos;s own Python; what other extensions use stays as it is.</source>
        <translation>MedEnhance calcula con paquetes que no vienen con Slicer. Faltan {count}: hay que descargar unos {size}, una sola vez. Se instalan en el Python de Slicer; lo que usan otras extensiones no cambia.</translation>
    </message>
    <message>
        <source>&amp;Install… ({size})</source>
        <translation>&amp;Instalar… ({size})</translation>
    </message>
    <message>
        <source>{purpose}; replaces version {version}</source>
        <translation>{purpose}; sustituye a la versión {version}</translation>
    </message>
    <message>
        <source>Everything works; a graphics card is not used.</source>
        <translation>Todo funciona; no se usa ninguna tarjeta gráfica.</translation>
    </message>
    <message>
        <source>The extension PyTorch is installed: it selects the version for your graphics card.</source>
        <translation>La extensión PyTorch está instalada: ella elige la versión para su tarjeta gráfica.</translation>
    </message>
    <message>
        <source>Uses an NVIDIA or Apple graphics card if available, otherwise the CPU.</source>
        <translation>Usa una tarjeta gráfica NVIDIA o Apple si la hay; si no, la CPU.</translation>
    </message>
    <message>
        <source>{count} packages, about {size}, will be downloaded and installed into Slicer&apos;s Python. You can continue to work. Install them?</source>
        <translation>Se descargarán e instalarán {count} paquetes, unos {size}, en el Python de Slicer. Puede seguir trabajando. ¿Instalarlos?</translation>
    </message>
    <message>
        <source>MedEnhance: install packages</source>
        <translation>MedEnhance: instalar paquetes</translation>
    </message>
    <message>
        <source>Choose the folder with the downloaded wheels</source>
        <translation>Elegir la carpeta con los wheels descargados</translation>
    </message>
    <message>
        <source>{count} packages will be installed into Slicer&apos;s Python from {folder}, which has {wheels} wheels. Install them?</source>
        <translation>Se instalarán {count} paquetes en el Python de Slicer desde {folder}, que tiene {wheels} wheels. ¿Instalarlos?</translation>
    </message>
    <message>
        <source>Starting…</source>
        <translation>Iniciando…</translation>
    </message>
    <message>
        <source>Looking for {what}</source>
        <translation>Buscando {what}</translation>
    </message>
    <message>
        <source>Downloading {what}</source>
        <translation>Descargando {what}</translation>
    </message>
    <message>
        <source>Building {what}</source>
        <translation>Compilando {what}</translation>
    </message>
    <message>
        <source>Installing</source>
        <translation>Instalando</translation>
    </message>
    <message>
        <source>Everything that MedEnhance needs is installed.</source>
        <translation>Todo lo que MedEnhance necesita está instalado.</translation>
    </message>
    <message>
        <source>Looking…</source>
        <translation>Comprobando…</translation>
    </message>
    <message>
        <source>Check this computer</source>
        <translation>Comprobar este equipo</translation>
    </message>
</context>
<context>
    <name>pages.jobs</name>
    <message>
        <source>Waiting</source>
        <translation>En espera</translation>
    </message>
    <message>
        <source>Running</source>
        <translation>En curso</translation>
    </message>
    <message>
        <source>Done</source>
        <translation>Terminado</translation>
    </message>
    <message>
        <source>Failed</source>
        <translation>Fallido</translation>
    </message>
    <message>
        <source>Cancelled</source>
        <translation>Cancelado</translation>
    </message>
    <message>
        <source>Done, {failed} of {count} failed</source>
        <translation>Terminado, fallaron {failed} de {count}</translation>
    </message>
    <message>
        <source>{state}; started {when}, took {time}</source>
        <translation>{state}; inicio {when}, duración {time}</translation>
    </message>
    <message>
        <source>Result: {name}</source>
        <translation>Resultado: {name}</translation>
    </message>
</context>
<context>
    <name>pages.load</name>
    <message>
        <source>Volumes ({endings});;All files (*)</source>
        <translation>Volúmenes ({endings});;Todos los archivos (*)</translation>
    </message>
    <message>
        <source>Open a volume</source>
        <translation>Abrir un volumen</translation>
    </message>
    <message>
        <source>Open a folder of DICOM images</source>
        <translation>Abrir una carpeta de imágenes DICOM</translation>
    </message>
    <message>
        <source>{frames} frames of {size} voxels</source>
        <translation>{frames} fotogramas de {size} vóxeles</translation>
    </message>
    <message>
        <source>{size} voxels</source>
        <translation>{size} vóxeles</translation>
    </message>
    <message>
        <source>{size} mm</source>
        <translation>{size} mm</translation>
    </message>
    <message>
        <source>not rectangular</source>
        <translation>no rectangular</translation>
    </message>
    <message>
        <source>{low} to {high} {unit} ({type})</source>
        <translation>{low} a {high} {unit} ({type})</translation>
    </message>
    <message>
        <source>“{name}” holds no volume</source>
        <translation>«{name}» no contiene ningún volumen</translation>
    </message>
    <message>
        <source>Load it again, or choose another.</source>
        <translation>Cárguelo de nuevo, o elija otro.</translation>
    </message>
</context>
<context>
    <name>pages.load_choices</name>
    <message>
        <source>List the series</source>
        <translation>Enumerar las series</translation>
    </message>
    <message>
        <source>Choose the series to load, or double-click it:</source>
        <translation>Elija la serie que se debe cargar, o haga doble clic en ella:</translation>
    </message>
    <message>
        <source>Choose the series to load, or double-click it. {count} in gray cannot be loaded; choose one to see why.</source>
        <translation>Elija la serie que se debe cargar, o haga doble clic en ella. Las {count} en gris no se pueden cargar; elija una para ver por qué.</translation>
    </message>
    <message>
        <source>(no description)</source>
        <translation>(sin descripción)</translation>
    </message>
    <message>
        <source>Series</source>
        <translation>Serie</translation>
    </message>
    <message>
        <source>Patient</source>
        <translation>Paciente</translation>
    </message>
    <message>
        <source>Study</source>
        <translation>Estudio</translation>
    </message>
    <message>
        <source>Files</source>
        <translation>Archivos</translation>
    </message>
    <message>
        <source>It cannot be loaded: {reason}.</source>
        <translation>No se puede cargar: {reason}.</translation>
    </message>
    <message>
        <source>straighten the tilted slices</source>
        <translation>enderezar los cortes inclinados</translation>
    </message>
    <message>
        <source>interpolate slices at even distances</source>
        <translation>interpolar cortes a distancias iguales</translation>
    </message>
    <message>
        <source>straighten the tilted slices, and interpolate them at even distances</source>
        <translation>enderezar los cortes inclinados e interpolarlos a distancias iguales</translation>
    </message>
    <message>
        <source>It can be loaded resampled, which would {what}. Values between the original slices are then interpolated, and the volume is marked as resampled.</source>
        <translation>Se puede cargar remuestreado, para {what}. Los valores entre los cortes originales quedan entonces interpolados, y el volumen se marca como remuestreado.</translation>
    </message>
</context>
<context>
    <name>pages.models</name>
    <message>
        <source>From a folder…</source>
        <translation>Desde una carpeta…</translation>
    </message>
    <message>
        <source>From a zip file…</source>
        <translation>Desde un archivo zip…</translation>
    </message>
    <message>
        <source>List models</source>
        <translation>Enumerar los modelos</translation>
    </message>
    <message>
        <source>Verify models</source>
        <translation>Verificar los modelos</translation>
    </message>
    <message>
        <source>Import {name}</source>
        <translation>Importar {name}</translation>
    </message>
    <message>
        <source>Remove {name}</source>
        <translation>Quitar {name}</translation>
    </message>
    <message>
        <source>Choose a model&apos;s folder</source>
        <translation>Elegir la carpeta de un modelo</translation>
    </message>
    <message>
        <source>Choose a model&apos;s zip file</source>
        <translation>Elegir el archivo zip de un modelo</translation>
    </message>
    <message>
        <source>Zip files (*.zip)</source>
        <translation>Archivos zip (*.zip)</translation>
    </message>
    <message>
        <source>Delete the model {name} from this computer? This cannot be undone.</source>
        <translation>¿Eliminar el modelo {name} de este equipo? Esto no se puede deshacer.</translation>
    </message>
    <message>
        <source>MedEnhance: remove a model</source>
        <translation>MedEnhance: quitar un modelo</translation>
    </message>
    <message>
        <source>The model {name} is installed.</source>
        <translation>El modelo {name} está instalado.</translation>
    </message>
    <message>
        <source>All files of {count} models are intact.</source>
        <translation>Todos los archivos de {count} modelos están intactos.</translation>
    </message>
    <message>
        <source>Import these models again.</source>
        <translation>Importe de nuevo estos modelos.</translation>
    </message>
    <message>
        <source>No model is installed. Import one from a folder or a zip.</source>
        <translation>No hay ningún modelo instalado. Importe uno desde una carpeta o un zip.</translation>
    </message>
    <message>
        <source>Enhancing</source>
        <translation>Mejora</translation>
    </message>
    <message>
        <source>Segmenting</source>
        <translation>Segmentación</translation>
    </message>
    <message>
        <source>Compressing</source>
        <translation>Compresión</translation>
    </message>
    <message>
        <source>Thin slices</source>
        <translation>Cortes finos</translation>
    </message>
    <message>
        <source>Restoring</source>
        <translation>Restauración</translation>
    </message>
    <message>
        <source>Shipped</source>
        <translation>Incluido</translation>
    </message>
    <message>
        <source>Imported</source>
        <translation>Importado</translation>
    </message>
    <message>
        <source>Version {version}, {size}. {origin}</source>
        <translation>Versión {version}, {size}. {origin}</translation>
    </message>
    <message>
        <source>Came with MedEnhance.</source>
        <translation>Vino con MedEnhance.</translation>
    </message>
</context>
<context>
    <name>pages.presets</name>
    <message>
        <source>None</source>
        <translation>Ninguno</translation>
    </message>
    <message>
        <source>Save a preset</source>
        <translation>Guardar un preajuste</translation>
    </message>
    <message>
        <source>Name:</source>
        <translation>Nombre:</translation>
    </message>
    <message>
        <source>Replace the preset “{name}”?</source>
        <translation>¿Reemplazar el preajuste «{name}»?</translation>
    </message>
</context>
<context>
    <name>pages.result_tools</name>
    <message>
        <source>Rename…</source>
        <translation>Cambiar nombre…</translation>
    </message>
    <message>
        <source>Save as a file…</source>
        <translation>Guardar como archivo…</translation>
    </message>
    <message>
        <source>Export to DICOM…</source>
        <translation>Exportar a DICOM…</translation>
    </message>
    <message>
        <source>Remove…</source>
        <translation>Quitar…</translation>
    </message>
    <message>
        <source>Rename</source>
        <translation>Cambiar nombre</translation>
    </message>
    <message>
        <source>Name of the result:</source>
        <translation>Nombre del resultado:</translation>
    </message>
    <message>
        <source>Save the result</source>
        <translation>Guardar el resultado</translation>
    </message>
    <message>
        <source>Saved as {path}. Its header says that it is derived.</source>
        <translation>Guardado como {path}. Su encabezado indica que es derivado.</translation>
    </message>
    <message>
        <source>Remove from the scene: {names}</source>
        <translation>Quitar de la escena: {names}</translation>
    </message>
</context>
<context>
    <name>pages.widgets</name>
    <message>
        <source>Information</source>
        <translation>Información</translation>
    </message>
    <message>
        <source>Warning</source>
        <translation>Aviso</translation>
    </message>
    <message>
        <source>Alarm</source>
        <translation>Alarma</translation>
    </message>
    <message>
        <source>Error</source>
        <translation>Error</translation>
    </message>
</context>
<context>
    <name>tasks.batches</name>
    <message>
        <source>{name} has no voxels</source>
        <translation>{name} no tiene vóxeles</translation>
    </message>
    <message>
        <source>Enhance {count} volumes</source>
        <translation>Mejorar {count} volúmenes</translation>
    </message>
    <message>
        <source>It was removed from the scene</source>
        <translation>Se eliminó de la escena</translation>
    </message>
    <message>
        <source>{number} of {count}: {stage}</source>
        <translation>{number} de {count}: {stage}</translation>
    </message>
    <message>
        <source>Enhance {folder}</source>
        <translation>Mejorar {folder}</translation>
    </message>
    <message>
        <source>{name} failed: {why}</source>
        <translation>{name} falló: {why}</translation>
    </message>
    <message>
        <source>Enhance {count} series</source>
        <translation>Mejorar {count} series</translation>
    </message>
    <message>
        <source>Batch summary</source>
        <translation>Resumen del lote</translation>
    </message>
    <message>
        <source>enhanced</source>
        <translation>mejorado</translation>
    </message>
    <message>
        <source>failed</source>
        <translation>fallido</translation>
    </message>
    <message>
        <source>cancelled</source>
        <translation>cancelado</translation>
    </message>
    <message>
        <source>Volume</source>
        <translation>Volumen</translation>
    </message>
    <message>
        <source>Outcome</source>
        <translation>Resultado</translation>
    </message>
    <message>
        <source>Seconds</source>
        <translation>Segundos</translation>
    </message>
    <message>
        <source>Remark</source>
        <translation>Observación</translation>
    </message>
    <message>
        <source>{done} of {count} volumes were enhanced. “Show table”, below Batch, shows {table}, with a row for each.</source>
        <translation>Se mejoraron {done} de {count} volúmenes. «Mostrar tabla», en Lote, muestra {table}, con una fila para cada uno.</translation>
    </message>
</context>
<context>
    <name>tasks.blending</name>
    <message>
        <source>Its input is not in the scene, so it cannot be blended.</source>
        <translation>Su entrada no está en la escena, por lo que no se puede mezclar.</translation>
    </message>
    <message>
        <source>It is a frame of a sequence: another strength would change this frame alone.</source>
        <translation>Es un fotograma de una secuencia: otro grado cambiaría solo este fotograma.</translation>
    </message>
    <message>
        <source>Its slices are not those of its input, so it cannot be blended.</source>
        <translation>Sus cortes no son los de su entrada, por lo que no se puede mezclar.</translation>
    </message>
    <message>
        <source>There are no voxels to blend.</source>
        <translation>No hay vóxeles que mezclar.</translation>
    </message>
    <message>
        <source>The size of {name} has changed since it was enhanced.</source>
        <translation>El tamaño de {name} ha cambiado desde que se mejoró.</translation>
    </message>
    <message>
        <source>The voxels of {name} were changed. Enhance again for another strength.</source>
        <translation>Se modificaron los vóxeles de {name}. Mejore de nuevo para otro grado.</translation>
    </message>
    <message>
        <source>It is at strength {strength:g}, and the full result is gone. Enhance again for another strength.</source>
        <translation>Tiene el grado {strength:g} y ya no existe el resultado completo. Mejore de nuevo para otro grado.</translation>
    </message>
    <message>
        <source>The bias field, which its uncertainty depends on, is gone. Enhance again for another strength.</source>
        <translation>Ya no existe el campo de sesgo, del que depende su incertidumbre. Mejore de nuevo para otro grado.</translation>
    </message>
    <message>
        <source>{name} was removed</source>
        <translation>{name} se eliminó</translation>
    </message>
    <message>
        <source>The voxels of {name} were changed</source>
        <translation>Los vóxeles de {name} cambiaron</translation>
    </message>
    <message>
        <source>{happened} in the meantime, so the strength was not applied</source>
        <translation>{happened} entretanto, por lo que no se aplicó el grado</translation>
    </message>
    <message>
        <source>The result is unchanged: check it, then set the strength again.</source>
        <translation>El resultado no cambió: revíselo y ajuste de nuevo el grado.</translation>
    </message>
</context>
<context>
    <name>tasks.compression</name>
    <message>
        <source>MedEnhance compressed volume</source>
        <translation>Volumen comprimido de MedEnhance</translation>
    </message>
    <message>
        <source>{count} compression modes are chosen</source>
        <translation>Hay {count} modos de compresión elegidos</translation>
    </message>
    <message>
        <source>Choose exactly one of lossless, maxError, ratio, psnr and ssim.</source>
        <translation>Elija exactamente uno de lossless, maxError, ratio, psnr y ssim.</translation>
    </message>
    <message>
        <source>Compress {name}</source>
        <translation>Comprimir {name}</translation>
    </message>
    <message>
        <source>The frame times are uneven or not in s or ms: the file keeps only the order of the frames.</source>
        <translation>Los tiempos de los fotogramas son irregulares o no están en s o ms: el archivo conserva solo el orden de los fotogramas.</translation>
    </message>
    <message>
        <source>Estimate {name}</source>
        <translation>Estimar {name}</translation>
    </message>
    <message>
        <source>Inspect {name}</source>
        <translation>Examinar {name}</translation>
    </message>
    <message>
        <source>Preview {name}</source>
        <translation>Vista previa de {name}</translation>
    </message>
    <message>
        <source>{name} recovered</source>
        <translation>{name} recuperado</translation>
    </message>
    <message>
        <source>Lost</source>
        <translation>Perdido</translation>
    </message>
    <message>
        <source>{name} lost</source>
        <translation>{name} perdido</translation>
    </message>
    <message>
        <source>Open {name}</source>
        <translation>Abrir {name}</translation>
    </message>
    <message>
        <source>The difference can be shown for single volumes only</source>
        <translation>La diferencia solo se puede mostrar para volúmenes individuales</translation>
    </message>
    <message>
        <source>Open the file and compare its frames.</source>
        <translation>Abra el archivo y compare sus fotogramas.</translation>
    </message>
    <message>
        <source>The volume is no longer in the scene</source>
        <translation>El volumen ya no está en la escena</translation>
    </message>
    <message>
        <source>{name} decoded</source>
        <translation>{name} descodificado</translation>
    </message>
    <message>
        <source>{name} difference</source>
        <translation>{name} diferencia</translation>
    </message>
    <message>
        <source>Difference of {name}</source>
        <translation>Diferencia de {name}</translation>
    </message>
    <message>
        <source>{name} is a label map: lossy compression would change its labels</source>
        <translation>{name} es un mapa de etiquetas: la compresión con pérdida cambiaría sus etiquetas</translation>
    </message>
    <message>
        <source>Choose lossless; label maps compress very well.</source>
        <translation>Elija sin pérdida; los mapas de etiquetas se comprimen muy bien.</translation>
    </message>
    <message>
        <source>No file is chosen</source>
        <translation>No hay ningún archivo elegido</translation>
    </message>
    <message>
        <source>Choose where to save it.</source>
        <translation>Elija dónde guardarlo.</translation>
    </message>
    <message>
        <source>{name} does not end in {ending}</source>
        <translation>{name} no termina en {ending}</translation>
    </message>
    <message>
        <source>Choose a file name that ends in {ending}.</source>
        <translation>Elija un nombre de archivo que termine en {ending}.</translation>
    </message>
    <message>
        <source>The folder {folder} does not exist</source>
        <translation>La carpeta {folder} no existe</translation>
    </message>
    <message>
        <source>Create it, or choose another.</source>
        <translation>Créela, o elija otra.</translation>
    </message>
    <message>
        <source>{name} exists already</source>
        <translation>{name} ya existe</translation>
    </message>
    <message>
        <source>Choose another name, or allow replacing it.</source>
        <translation>Elija otro nombre, o permita reemplazarlo.</translation>
    </message>
    <message>
        <source>{name} was not compressed by MedEnhance</source>
        <translation>{name} no fue comprimido por MedEnhance</translation>
    </message>
    <message>
        <source>Choose another file.</source>
        <translation>Elija otro archivo.</translation>
    </message>
    <message>
        <source>Copy the file again, or recover the intact parts on MedEnhance&apos;s page Compress.</source>
        <translation>Copie de nuevo el archivo, o recupere las partes intactas en la página Comprimir de MedEnhance.</translation>
    </message>
    <message>
        <source>Copy the file again from its source.</source>
        <translation>Copie de nuevo el archivo desde su origen.</translation>
    </message>
</context>
<context>
    <name>tasks.compression_texts</name>
    <message>
        <source>Estimate: about {size}, {ratio:.1f} times smaller</source>
        <translation>Estimación: unos {size}, {ratio:.1f} veces menor</translation>
    </message>
    <message>
        <source>from {blocks} blocks, {share:.0%} of the volume</source>
        <translation>a partir de {blocks} bloques, {share:.0%} del volumen</translation>
    </message>
    <message>
        <source>Size</source>
        <translation>Tamaño</translation>
    </message>
    <message>
        <source>{size} instead of {raw}</source>
        <translation>{size} en lugar de {raw}</translation>
    </message>
    <message>
        <source>Ratio</source>
        <translation>Relación</translation>
    </message>
    <message>
        <source>{ratio:.1f} times smaller</source>
        <translation>{ratio:.1f} veces menor</translation>
    </message>
    <message>
        <source>Largest error</source>
        <translation>Error máximo</translation>
    </message>
    <message>
        <source>none: every voxel is equal</source>
        <translation>ninguno: todos los vóxeles son iguales</translation>
    </message>
    <message>
        <source>PSNR</source>
        <translation>PSNR</translation>
    </message>
    <message>
        <source>Verified</source>
        <translation>Verificado</translation>
    </message>
    <message>
        <source>every voxel was decoded and compared</source>
        <translation>se descodificaron y compararon todos los vóxeles</translation>
    </message>
    <message>
        <source>Time</source>
        <translation>Tiempo</translation>
    </message>
    <message>
        <source>{seconds:.1f} s</source>
        <translation>{seconds:.1f} s</translation>
    </message>
    <message>
        <source>File</source>
        <translation>Archivo</translation>
    </message>
    <message>
        <source>, {frames} frames</source>
        <translation>, {frames} fotogramas</translation>
    </message>
    <message>
        <source>{modality}, {size} voxels{frames}, {spacing} mm.</source>
        <translation>{modality}, {size} vóxeles{frames}, {spacing} mm.</translation>
    </message>
    <message>
        <source>{file} on disk, {raw} in memory ({ratio:.1f} times smaller).</source>
        <translation>{file} en disco, {raw} en memoria ({ratio:.1f} veces menor).</translation>
    </message>
    <message>
        <source>It cannot be opened here: {what} is missing.</source>
        <translation>No se puede abrir aquí: falta {what}.</translation>
    </message>
    <message>
        <source>No voxel of the file differs from the volume.</source>
        <translation>Ningún vóxel del archivo difiere del volumen.</translation>
    </message>
    <message>
        <source>The largest difference is {value} {units}</source>
        <translation>La diferencia máxima es {value} {units}</translation>
    </message>
    <message>
        <source>Everything could be read.</source>
        <translation>Se pudo leer todo.</translation>
    </message>
    <message>
        <source>1 of {blocks} blocks could not be read and holds the lowest value.</source>
        <translation>No se pudo leer 1 de {blocks} bloques, que contiene el valor más bajo.</translation>
    </message>
    <message>
        <source>{count} of {blocks} blocks could not be read and hold the lowest value.</source>
        <translation>No se pudieron leer {count} de {blocks} bloques, que contienen el valor más bajo.</translation>
    </message>
    <message>
        <source>Lossless: every voxel is restored exactly.</source>
        <translation>Sin pérdida: cada vóxel se restituye exactamente.</translation>
    </message>
    <message>
        <source>Lossy: the error of every voxel is at most {value} {units}</source>
        <translation>Con pérdida: el error de cada vóxel es como máximo {value} {units}</translation>
    </message>
    <message>
        <source>Lossy: compressed {ratio} times; the largest error is {value} {units}</source>
        <translation>Con pérdida: comprimido {ratio} veces; el error máximo es {value} {units}</translation>
    </message>
    <message>
        <source>, PSNR {psnr:.1f} dB.</source>
        <translation>, PSNR {psnr:.1f} dB.</translation>
    </message>
    <message>
        <source>lossless</source>
        <translation>sin pérdida</translation>
    </message>
    <message>
        <source>largest error about {value} {units}</source>
        <translation>error máximo de unos {value} {units}</translation>
    </message>
    <message>
        <source>{error}, PSNR {psnr:.0f} dB</source>
        <translation>{error}, PSNR {psnr:.0f} dB</translation>
    </message>
    <message>
        <source>{psnr:.1f} dB</source>
        <translation>{psnr:.1f} dB</translation>
    </message>
</context>
<context>
    <name>tasks.dicom_export</name>
    <message>
        <source>{name} DICOM</source>
        <translation>{name} DICOM</translation>
    </message>
    <message>
        <source>No destination is chosen</source>
        <translation>No hay destino elegido</translation>
    </message>
    <message>
        <source>Choose Slicer&apos;s DICOM database, a folder, or both.</source>
        <translation>Elija la base de datos DICOM de Slicer, una carpeta, o ambas.</translation>
    </message>
    <message>
        <source>A new patient ID cannot be combined with de-identification</source>
        <translation>Un ID de paciente nuevo no se puede combinar con la desidentificación</translation>
    </message>
    <message>
        <source>Enter a pseudonym as the patient&apos;s ID, without de-identification.</source>
        <translation>Introduzca un seudónimo como ID del paciente, sin desidentificación.</translation>
    </message>
    <message>
        <source>{name} does not come from DICOM: the patient is not known</source>
        <translation>{name} no procede de DICOM: no se conoce al paciente</translation>
    </message>
    <message>
        <source>Enter the patient&apos;s ID, or choose the study that it belongs to.</source>
        <translation>Introduzca el ID del paciente, o elija el estudio al que pertenece.</translation>
    </message>
    <message>
        <source>The folder {folder} does not exist</source>
        <translation>La carpeta {folder} no existe</translation>
    </message>
    <message>
        <source>Create it, or choose another.</source>
        <translation>Créela, o elija otra.</translation>
    </message>
    <message>
        <source>{folder} is not empty</source>
        <translation>{folder} no está vacía</translation>
    </message>
    <message>
        <source>Choose a new folder: existing files are never overwritten or mixed with new ones.</source>
        <translation>Elija una carpeta nueva: los archivos existentes nunca se sobrescriben ni se mezclan con los nuevos.</translation>
    </message>
    <message>
        <source>Export {name} as DICOM</source>
        <translation>Exportar {name} como DICOM</translation>
    </message>
    <message>
        <source>The scene was closed, so the export of {name} was stopped</source>
        <translation>Se cerró la escena, por lo que se detuvo la exportación de {name}</translation>
    </message>
    <message>
        <source>{name} was removed from the scene</source>
        <translation>{name} se eliminó de la escena</translation>
    </message>
    <message>
        <source>copying into Slicer&apos;s DICOM database</source>
        <translation>copiando a la base de datos DICOM de Slicer</translation>
    </message>
    <message>
        <source>Slicer&apos;s DICOM database was closed during the import</source>
        <translation>La base de datos DICOM de Slicer se cerró durante la importación</translation>
    </message>
    <message>
        <source>Open it in the module DICOM, then export again.</source>
        <translation>Ábrala en el módulo DICOM y exporte de nuevo.</translation>
    </message>
    <message>
        <source>Slicer&apos;s DICOM database accepted only {held} of {count} files</source>
        <translation>La base de datos DICOM de Slicer aceptó solo {held} de {count} archivos</translation>
    </message>
    <message>
        <source>Check the disk of the database, or export to a folder and import it.</source>
        <translation>Compruebe el disco de la base de datos, o exporte a una carpeta e impórtela.</translation>
    </message>
</context>
<context>
    <name>tasks.dicom_labels</name>
    <message>
        <source>{name} has no segments</source>
        <translation>{name} no tiene segmentos</translation>
    </message>
    <message>
        <source>Add segments first, or export without the segmentation.</source>
        <translation>Añada antes segmentos, o exporte sin la segmentación.</translation>
    </message>
    <message>
        <source>Segments overlap in {count} voxels, which are assigned to the later segment of the list.</source>
        <translation>Hay segmentos que se solapan en {count} vóxeles, que se asignan al segmento posterior de la lista.</translation>
    </message>
</context>
<context>
    <name>tasks.distillation</name>
    <message>
        <source>Choose a folder of patients, a folder of DICOM, or a table (CSV: patient, path).</source>
        <translation>Elija una carpeta de pacientes, una carpeta DICOM o una tabla (CSV: patient, path).</translation>
    </message>
    <message>
        <source>Choose at least one volume of a patient.</source>
        <translation>Elija al menos un volumen de un paciente.</translation>
    </message>
    <message>
        <source>{names}: the patient is not known. Assign them to patients in the subject hierarchy, or leave them out.</source>
        <translation>{names}: no se conoce al paciente. Asígnelos a pacientes en la jerarquía de sujetos, u omítalos.</translation>
    </message>
    <message>
        <source>The volumes are neither all MR nor all CT: leave the others out, or choose the modality below.</source>
        <translation>Los volúmenes no son todos de RM ni todos de TC: omita los demás, o elija la modalidad abajo.</translation>
    </message>
    <message>
        <source>{name} has {count} slices; at least {least} are needed. Leave the patient out, or choose fewer images per patient.</source>
        <translation>{name} tiene {count} cortes; se necesitan al menos {least}. Omita al paciente, o elija menos imágenes por paciente.</translation>
    </message>
    <message>
        <source>Undersampling applies to MR only: choose another purpose.</source>
        <translation>El submuestreo solo se aplica a RM: elija otro fin.</translation>
    </message>
    <message>
        <source>There is no public template for CT: choose a volume that may be shared, or a patient who consented to being recognizable.</source>
        <translation>No hay plantilla pública para TC: elija un volumen que se pueda compartir, o un paciente que haya consentido en ser reconocible.</translation>
    </message>
    <message>
        <source>Give the run a name.</source>
        <translation>Dé un nombre a la ejecución.</translation>
    </message>
    <message>
        <source>Choose the prior&apos;s file.</source>
        <translation>Elija el archivo de partida.</translation>
    </message>
    <message>
        <source>Choose the prior&apos;s volume.</source>
        <translation>Elija el volumen de partida.</translation>
    </message>
    <message>
        <source>The prior is a volume of the cohort: choose “A patient of the cohort” as the prior, or leave the volume out of the cohort.</source>
        <translation>El volumen de partida es de la cohorte: elija «Un paciente de la cohorte» como partida, u omita el volumen en la cohorte.</translation>
    </message>
    <message>
        <source>Choose the patient who is the prior.</source>
        <translation>Elija el paciente de partida.</translation>
    </message>
    <message>
        <source>There is no patient {name} in the cohort.</source>
        <translation>No hay ningún paciente {name} en la cohorte.</translation>
    </message>
    <message>
        <source>{count} images for each patient, made from that patient&apos;s images</source>
        <translation>{count} imágenes por cada paciente, hechas a partir de las imágenes de ese paciente</translation>
    </message>
    <message>
        <source>{count} numbers, which are means over all patients</source>
        <translation>{count} números, que son medias de todos los pacientes</translation>
    </message>
    <message>
        <source>and images of the prior, who is a patient of the cohort</source>
        <translation>e imágenes del volumen de partida, que es de un paciente de la cohorte</translation>
    </message>
    <message>
        <source>and no image of any of them</source>
        <translation>y ninguna imagen de ellos</translation>
    </message>
    <message>
        <source>Will be shared: {matching}.</source>
        <translation>Se compartirán: {matching}.</translation>
    </message>
    <message>
        <source>Will be shared: {statistics}, {whose}.</source>
        <translation>Se compartirán: {statistics}, {whose}.</translation>
    </message>
    <message>
        <source>Will be shared, as the method turns out: {matching}; or {statistics}, {whose}.</source>
        <translation>Se compartirán, según resulte el método: {matching}; o {statistics}, {whose}.</translation>
    </message>
    <message>
        <source>Every image will show the prior&apos;s anatomy: use a public volume, or one whose patient consented.</source>
        <translation>Todas las imágenes mostrarán la anatomía del volumen de partida: use un volumen público, o uno cuyo paciente haya dado su consentimiento.</translation>
    </message>
    <message>
        <source>Every image will show a patient of the cohort, who can be recognized in it.</source>
        <translation>Todas las imágenes mostrarán a un paciente de la cohorte, que puede ser reconocido en ellas.</translation>
    </message>
    <message>
        <source>No patient is held out: the audit cannot compare with anyone.</source>
        <translation>Ningún paciente queda reservado: la auditoría no puede comparar con nadie.</translation>
    </message>
    <message>
        <source>With so few patients, the audit can hardly find anything.</source>
        <translation>Con tan pocos pacientes, la auditoría apenas puede encontrar nada.</translation>
    </message>
    <message>
        <source>The cohort cannot be distilled</source>
        <translation>La cohorte no se puede destilar</translation>
    </message>
    <message>
        <source>Estimate what a distillation can gain</source>
        <translation>Estimar lo que puede ganar una destilación</translation>
    </message>
</context>
<context>
    <name>tasks.enhancement</name>
    <message>
        <source>Enhance {name}</source>
        <translation>Mejorar {name}</translation>
    </message>
    <message>
        <source>Preview of {name}</source>
        <translation>Vista previa de {name}</translation>
    </message>
    <message>
        <source>Segment {name}</source>
        <translation>Segmentar {name}</translation>
    </message>
    <message>
        <source>The output volume was removed from the scene</source>
        <translation>El volumen de salida se eliminó de la escena</translation>
    </message>
    <message>
        <source>Choose another.</source>
        <translation>Elija otro.</translation>
    </message>
    <message>
        <source>{name} was changed during the run</source>
        <translation>{name} cambió durante la ejecución</translation>
    </message>
    <message>
        <source>Run it again.</source>
        <translation>Ejecútelo de nuevo.</translation>
    </message>
    <message>
        <source>{name} was changed during the run, so there is no difference map</source>
        <translation>{name} cambió durante la ejecución, por lo que no hay mapa de diferencias</translation>
    </message>
    <message>
        <source>{name} preview</source>
        <translation>{name} vista previa</translation>
    </message>
    <message>
        <source>{name} enhanced</source>
        <translation>{name} mejorado</translation>
    </message>
    <message>
        <source>{name} difference</source>
        <translation>{name} diferencia</translation>
    </message>
    <message>
        <source>{name} uncertainty</source>
        <translation>{name} incertidumbre</translation>
    </message>
    <message>
        <source>{name} noise</source>
        <translation>{name} ruido</translation>
    </message>
    <message>
        <source>{name} segmentation</source>
        <translation>{name} segmentación</translation>
    </message>
    <message>
        <source>{name} structures</source>
        <translation>{name} estructuras</translation>
    </message>
    <message>
        <source>A sequence cannot be segmented as a whole</source>
        <translation>Una secuencia no se puede segmentar entera</translation>
    </message>
    <message>
        <source>Segment one frame.</source>
        <translation>Segmente un fotograma.</translation>
    </message>
    <message>
        <source>Thin slices lie on a grid of their own, so they cannot be written into a volume</source>
        <translation>Los cortes finos están en una cuadrícula propia, por lo que no se pueden escribir en un volumen</translation>
    </message>
    <message>
        <source>Leave the output out.</source>
        <translation>Omita la salida.</translation>
    </message>
    <message>
        <source>The model {head} is for segmentation, which is not selected</source>
        <translation>El modelo {head} es para segmentación, que no está seleccionada</translation>
    </message>
    <message>
        <source>Select segmentation too, or leave out this model.</source>
        <translation>Seleccione también la segmentación, u omita este modelo.</translation>
    </message>
    <message>
        <source>Maps, segmentation, thin slices and N4 need the whole volume, not a region</source>
        <translation>Los mapas, la segmentación, los cortes finos y N4 necesitan el volumen entero, no una región</translation>
    </message>
    <message>
        <source>Leave out the region, or these.</source>
        <translation>Omita la región, o bien aquellos.</translation>
    </message>
</context>
<context>
    <name>tasks.files</name>
    <message>
        <source>Load {name}</source>
        <translation>Cargar {name}</translation>
    </message>
    <message>
        <source>{name} cannot be read, neither by MedEnhance nor by Slicer</source>
        <translation>{name} no lo puede leer ni MedEnhance ni Slicer</translation>
    </message>
    <message>
        <source>Choose a DICOM folder or image, or one of: {endings}.</source>
        <translation>Elija una carpeta o imagen DICOM, o uno de: {endings}.</translation>
    </message>
    <message>
        <source>{name} was loaded, but it is not a volume</source>
        <translation>{name} se cargó, pero no es un volumen</translation>
    </message>
    <message>
        <source>Choose another file.</source>
        <translation>Elija otro archivo.</translation>
    </message>
    <message>
        <source>Load it with Slicer&apos;s module DICOM, then choose it here.</source>
        <translation>Cárguelo con el módulo DICOM de Slicer y elíjalo aquí.</translation>
    </message>
    <message>
        <source>{hint} Or load it with Slicer&apos;s module DICOM and choose it here; note the warnings that are then shown.</source>
        <translation>{hint} O cárguelo con el módulo DICOM de Slicer y elíjalo aquí; tenga en cuenta los avisos que entonces se muestran.</translation>
    </message>
    <message>
        <source>Save {name}</source>
        <translation>Guardar {name}</translation>
    </message>
    <message>
        <source>{name}: this is a preview, the whole volume follows</source>
        <translation>{name}: es una vista previa, el volumen entero viene después</translation>
    </message>
</context>
<context>
    <name>tasks.long_run</name>
    <message>
        <source>The run has no name</source>
        <translation>La ejecución no tiene nombre</translation>
    </message>
    <message>
        <source>Give it one.</source>
        <translation>Póngale uno.</translation>
    </message>
    <message>
        <source>{folder} cannot be created: {why}</source>
        <translation>No se puede crear {folder}: {why}</translation>
    </message>
    <message>
        <source>Choose another folder for runs.</source>
        <translation>Elija otra carpeta para las ejecuciones.</translation>
    </message>
    <message>
        <source>{folder} contains no readable run</source>
        <translation>{folder} no contiene ninguna ejecución legible</translation>
    </message>
    <message>
        <source>Choose the folder of a run.</source>
        <translation>Elija la carpeta de una ejecución.</translation>
    </message>
    <message>
        <source>Train {name}</source>
        <translation>Entrenar {name}</translation>
    </message>
    <message>
        <source>Distill {name}</source>
        <translation>Destilar {name}</translation>
    </message>
    <message>
        <source>{name} cannot be resumed: it is {state}</source>
        <translation>{name} no se puede reanudar; su estado es: {state}</translation>
    </message>
    <message>
        <source>Start a new run.</source>
        <translation>Inicie una ejecución nueva.</translation>
    </message>
    <message>
        <source>{name} is being trained</source>
        <translation>{name} se está entrenando</translation>
    </message>
    <message>
        <source>{name} is being distilled</source>
        <translation>{name} se está destilando</translation>
    </message>
    <message>
        <source>Pause it, or wait for its end.</source>
        <translation>Póngalo en pausa, o espere a que termine.</translation>
    </message>
    <message>
        <source>{name}, training started {time}, {state}</source>
        <translation>{name}, entrenamiento iniciado {time}, {state}</translation>
    </message>
    <message>
        <source>{name}, distillation started {time}, {state}</source>
        <translation>{name}, destilado iniciado {time}, {state}</translation>
    </message>
    <message>
        <source>interrupted</source>
        <translation>interrumpido</translation>
    </message>
    <message>
        <source>paused</source>
        <translation>en pausa</translation>
    </message>
    <message>
        <source>failed</source>
        <translation>fallido</translation>
    </message>
    <message>
        <source>cancelled</source>
        <translation>cancelado</translation>
    </message>
    <message>
        <source>done</source>
        <translation>terminado</translation>
    </message>
    <message>
        <source>{name}: {state} after {time}.</source>
        <translation>{name}: {state} tras {time}.</translation>
    </message>
    <message>
        <source>The model is in {folder}.</source>
        <translation>El modelo está en {folder}.</translation>
    </message>
    <message>
        <source>Resume continues from its last checkpoint.</source>
        <translation>Reanudar continúa desde su último punto de control.</translation>
    </message>
    <message>
        <source>Its folder is kept: {folder}</source>
        <translation>Se conserva su carpeta: {folder}</translation>
    </message>
    <message>
        <source>{images} images from {patients} patients; {held} patients were held out. The images are for training only: structures that look like organs may not exist in any patient.</source>
        <translation>{images} imágenes de {patients} pacientes; se reservaron {held} pacientes. Las imágenes son solo para entrenar: las estructuras que parecen órganos pueden no existir en ningún paciente.</translation>
    </message>
    <message>
        <source>{percent} % done</source>
        <translation>{percent} % hecho</translation>
    </message>
    <message>
        <source>{share}: {done} of {patients} patients.</source>
        <translation>{share}: {done} de {patients} pacientes.</translation>
    </message>
    <message>
        <source>less than a minute</source>
        <translation>menos de un minuto</translation>
    </message>
    <message>
        <source>about a minute</source>
        <translation>un minuto aproximadamente</translation>
    </message>
    <message>
        <source>about {minutes} minutes</source>
        <translation>unos {minutes} minutos</translation>
    </message>
    <message>
        <source>about {hours} hours</source>
        <translation>unas {hours} horas</translation>
    </message>
</context>
<context>
    <name>tasks.node_job</name>
    <message>
        <source>The size of {name} has changed since the job started</source>
        <translation>El tamaño de {name} ha cambiado desde que empezó el trabajo</translation>
    </message>
    <message>
        <source>Run it again.</source>
        <translation>Ejecútelo de nuevo.</translation>
    </message>
    <message>
        <source>The scene was closed, so the job on {name} was stopped</source>
        <translation>Se cerró la escena, por lo que se detuvo el trabajo con {name}</translation>
    </message>
    <message>
        <source>{name} was removed from the scene, so the job on it was stopped</source>
        <translation>{name} se eliminó de la escena, por lo que se detuvo el trabajo con él</translation>
    </message>
</context>
<context>
    <name>tasks.samples</name>
    <message>
        <source>MNI152: average brain, T1 (included)</source>
        <translation>MNI152: cerebro medio, T1 (incluido)</translation>
    </message>
    <message>
        <source>T1-weighted average of 152 adults, skull-stripped, 1 mm; shows no single person</source>
        <translation>Promedio de 152 adultos potenciado en T1, sin cráneo, 1 mm; no muestra a ninguna persona concreta</translation>
    </message>
    <message>
        <source>MNI152 with noise (included)</source>
        <translation>MNI152 con ruido (incluido)</translation>
    </message>
    <message>
        <source>The average brain with simulated noise of 9 %: shows what Enhance does in seconds</source>
        <translation>El cerebro medio con un ruido simulado del 9 %: muestra en segundos lo que hace Mejorar</translation>
    </message>
    <message>
        <source>MNI152 with noise, blur and shading (included)</source>
        <translation>MNI152 con ruido, borrosidad y sombreado (incluido)</translation>
    </message>
    <message>
        <source>The average brain with a simulated bad day of a scanner</source>
        <translation>El cerebro medio tal como saldría en un mal día del equipo, simulado</translation>
    </message>
    <message>
        <source>Low-dose CT: CTChest with noise (download)</source>
        <translation>TC de baja dosis: CTChest con ruido (descarga)</translation>
    </message>
    <message>
        <source>Slicer&apos;s sample CTChest, 30 MB, with the noise of a scan at a low dose, simulated when it is opened</source>
        <translation>El ejemplo CTChest de Slicer, 30 MB, con el ruido de una adquisición a baja dosis, simulado al abrirlo</translation>
    </message>
    <message>
        <source>Made noisier on purpose: Slicer&apos;s sample CTChest with simulated noise of a low dose.</source>
        <translation>Más ruidoso a propósito: el ejemplo CTChest de Slicer con el ruido simulado de una dosis baja.</translation>
    </message>
    <message>
        <source>MRHead: T1 of a head (download)</source>
        <translation>MRHead: T1 de una cabeza (descarga)</translation>
    </message>
    <message>
        <source>Slicer&apos;s sample, 4 MB</source>
        <translation>Ejemplo de Slicer, 4 MB</translation>
    </message>
    <message>
        <source>CTChest: chest CT (download)</source>
        <translation>CTChest: TC de tórax (descarga)</translation>
    </message>
    <message>
        <source>Slicer&apos;s sample, 30 MB</source>
        <translation>Ejemplo de Slicer, 30 MB</translation>
    </message>
    <message>
        <source>CTACardio: CT angiography (download)</source>
        <translation>CTACardio: angiografía por TC (descarga)</translation>
    </message>
    <message>
        <source>Slicer&apos;s sample, 40 MB</source>
        <translation>Ejemplo de Slicer, 40 MB</translation>
    </message>
    <message>
        <source>The sample {file} cannot be read</source>
        <translation>No se puede leer el ejemplo {file}</translation>
    </message>
    <message>
        <source>Install MedEnhance again.</source>
        <translation>Instale de nuevo MedEnhance.</translation>
    </message>
    <message>
        <source>The sample {file} is damaged</source>
        <translation>El ejemplo {file} está dañado</translation>
    </message>
    <message>
        <source>Downloading {name}</source>
        <translation>Descargando {name}</translation>
    </message>
    <message>
        <source>Slicer&apos;s module SampleData is not available</source>
        <translation>El módulo SampleData de Slicer no está disponible</translation>
    </message>
    <message>
        <source>Use the included sample, or open your own file.</source>
        <translation>Use el ejemplo incluido, o abra un archivo suyo.</translation>
    </message>
    <message>
        <source>This Slicer has no sample {name}</source>
        <translation>Este Slicer no tiene el ejemplo {name}</translation>
    </message>
    <message>
        <source>The connection was interrupted.</source>
        <translation>Se interrumpió la conexión.</translation>
    </message>
    <message>
        <source>The checksum of the file is wrong.</source>
        <translation>La suma de verificación del archivo es errónea.</translation>
    </message>
    <message>
        <source>{name} could not be loaded</source>
        <translation>No se pudo cargar {name}</translation>
    </message>
    <message>
        <source>The download may be damaged: try again.</source>
        <translation>La descarga puede estar dañada: inténtelo de nuevo.</translation>
    </message>
    <message>
        <source>{name} could not be downloaded</source>
        <translation>No se pudo descargar {name}</translation>
    </message>
    <message>
        <source>Is this computer online, and can it reach github.com? The included sample needs no network.</source>
        <translation>¿Está en línea este equipo y puede acceder a github.com? El ejemplo incluido no necesita red.</translation>
    </message>
</context>
<context>
    <name>tasks.training</name>
    <message>
        <source>{names}: not {modality}; better leave them out.</source>
        <translation>{names}: no son de {modality}; mejor omitirlos.</translation>
    </message>
    <message>
        <source>{names}: good and poor images should come from different patients.</source>
        <translation>{names}: las imágenes buenas y las deficientes deberían proceder de pacientes distintos.</translation>
    </message>
    <message>
        <source>Volumes without a patient in the subject hierarchy count as one patient.</source>
        <translation>Los volúmenes sin paciente en la jerarquía de sujetos cuentan como un solo paciente.</translation>
    </message>
    <message>
        <source>Mark at least one volume of the cohort as good.</source>
        <translation>Marque como bueno al menos un volumen de la cohorte.</translation>
    </message>
    <message>
        <source>None of the good volumes is {modality}.</source>
        <translation>Ninguno de los volúmenes buenos es de {modality}.</translation>
    </message>
    <message>
        <source>Good and poor volumes must come from different patients: assign them to patients in the subject hierarchy, or leave the poor ones out.</source>
        <translation>Los volúmenes buenos y los deficientes deben proceder de pacientes distintos: asígnelos a pacientes en la jerarquía de sujetos, u omita los deficientes.</translation>
    </message>
    <message>
        <source>{path}: there is no such segmenter. Choose its file or folder.</source>
        <translation>{path}: no existe tal segmentador. Elija su archivo o su carpeta.</translation>
    </message>
    <message>
        <source>A segmenter needs labels: choose a folder with volumes and their labels.</source>
        <translation>Un segmentador necesita etiquetas: elija una carpeta con volúmenes y sus etiquetas.</translation>
    </message>
    <message>
        <source>Enter the pattern of the label volumes.</source>
        <translation>Introduzca el patrón de los volúmenes de etiquetas.</translation>
    </message>
    <message>
        <source>The enhancer cannot be made for this segmenter</source>
        <translation>No se puede hacer el mejorador para este segmentador</translation>
    </message>
    <message>
        <source>No model can be trained on this cohort</source>
        <translation>No se puede entrenar ningún modelo con esta cohorte</translation>
    </message>
    <message>
        <source>a folder</source>
        <translation>una carpeta</translation>
    </message>
    <message>
        <source>{patients} patients, {volumes} volumes</source>
        <translation>{patients} pacientes, {volumes} volúmenes</translation>
    </message>
    <message>
        <source>local cohort</source>
        <translation>cohorte local</translation>
    </message>
    <message>
        <source>not stated</source>
        <translation>sin indicar</translation>
    </message>
    <message>
        <source>{folder}: no file matches {pattern}</source>
        <translation>{folder}: ningún archivo coincide con {pattern}</translation>
    </message>
    <message>
        <source>The folder</source>
        <translation>La carpeta</translation>
    </message>
    <message>
        <source>Choose another folder, or change the pattern.</source>
        <translation>Elija otra carpeta, o cambie el patrón.</translation>
    </message>
    <message>
        <source>There is no pattern for good images</source>
        <translation>No hay ningún patrón para las imágenes buenas</translation>
    </message>
    <message>
        <source>Enter one, such as hq/*.</source>
        <translation>Introduzca uno, como hq/*.</translation>
    </message>
</context>
</TS>
